//! The local socket: where the command line on the same machine reaches a running node, with the operator's
//! rights. Owns where it lies, who may open it and the routes; what is answered is [`crate::api`]'s and the
//! registry's.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use waystation_proto::{Hash, RepoName};

use crate::{
    api::{Api, ApiError, ApiProblem, BudgetReset, GrantRequest, MarkRequest},
    budget::BudgetChange,
    events::stream,
    gc::report::{GcRequest, PinRequest},
    policy::{Policies, answer::Deletion},
    reference::Reference,
    registry::serve_local,
};

/// A bound local socket, not serving yet. The file goes when this is dropped.
#[derive(Debug)]
pub struct LocalSocket {
    listener: Option<std::os::unix::net::UnixListener>,
    path: PathBuf,
    pointer: Option<PathBuf>,
}

/// Why the local socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("the local socket {0} is in use by another node; stop it or give another --data-dir")]
    InUse(PathBuf),
    /// Others could replace the socket.
    #[error("{path} {why}, so the local socket would not be safe there; change its owner or mode")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system refused.
    #[error("the local socket {path} could not be made: {why}")]
    Io {
        /// The socket or directory.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

impl LocalSocket {
    /// Makes the socket of the node with this data directory; only its owner can open it. A socket that a
    /// dead node left is replaced.
    pub fn bind(data_dir: &Path) -> Result<Self, SocketError> {
        let direct = data_dir.join(SOCKET_NAME);
        let pointer = data_dir.join(POINTER_NAME);
        let (path, pointer) = if fits(&direct) {
            // A pointer from the time when the data directory had a longer name would mislead.
            let _ = fs::remove_file(&pointer);
            (direct, None)
        } else {
            let dir = runtime_dir();
            make_private(&dir)?;
            let path = dir.join(format!("{}.sock", Hash::of(direct.as_os_str().as_bytes()).short()));
            (path, Some(pointer))
        };
        let dir = path.parent().unwrap_or(Path::new("/"));
        check_parent(dir)?;
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(SocketError::InUse(path));
        }
        let listener = bind_private(&path, dir).map_err(|why| SocketError::Io { path: path.clone(), why })?;
        if let Some(pointer) = &pointer {
            fs::write(pointer, path.as_os_str().as_bytes())
                .map_err(|why| SocketError::Io { path: pointer.clone(), why })?;
        }
        Ok(LocalSocket { listener: Some(listener), path, pointer })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves the registry under `/v2` and the API under `/api/v1` until `stop`, then lets requests under
    /// way finish as the registry does.
    pub async fn serve(self, registry: Router, api: Api, stop: CancellationToken) -> io::Result<()> {
        let events = stream::routes("/api/v1/events", api.events(), stop.clone());
        self.serve_router(registry.merge(routes(api)).merge(events), stop).await
    }

    async fn serve_router(mut self, router: Router, stop: CancellationToken) -> io::Result<()> {
        if let Some(listener) = self.listener.take() {
            serve_local(UnixListener::from_std(listener)?, router, stop).await;
        }
        Ok(())
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Whatever stays is replaced at the next start.
        let _ = fs::remove_file(&self.path);
        if let Some(pointer) = &self.pointer {
            let _ = fs::remove_file(pointer);
        }
    }
}

/// Where the socket of the node with this data directory is, if one is running.
pub fn locate(data_dir: &Path) -> PathBuf {
    let direct = data_dir.join(SOCKET_NAME);
    if fits(&direct) {
        return direct;
    }
    match fs::read(data_dir.join(POINTER_NAME)) {
        Ok(bytes) => PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)),
        Err(_) => direct,
    }
}

fn routes(api: Api) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/peers", get(peers))
        .route("/api/v1/artifacts", get(artifacts))
        .route("/api/v1/tags", get(tags))
        .route("/api/v1/inspect", get(inspect))
        .route("/api/v1/mesh/grant", post(grant))
        .route("/api/v1/budget", get(budget).post(change_budget))
        .route("/api/v1/budget/reset", post(reset_budget))
        .route("/api/v1/tag/history", get(tag_history))
        .route("/api/v1/explain/pull", get(explain_pull))
        .route("/api/v1/doctor", get(doctor))
        .route("/api/v1/policies", get(policies).post(apply_policies))
        .route("/api/v1/policies/delete", post(delete_policy))
        .route("/api/v1/coverage", get(coverage))
        .route("/api/v1/explain", get(explain))
        .route("/api/v1/du", get(usage))
        .route("/api/v1/gc", post(collect))
        .route("/api/v1/pin", post(pin))
        .route("/api/v1/mark", post(mark))
        .with_state(api)
}

#[derive(Deserialize)]
struct RepositoryQuery {
    repository: Option<String>,
}

#[derive(Deserialize)]
struct ReferenceQuery {
    reference: String,
}

async fn status(State(api): State<Api>) -> Response {
    Json(api.status().await).into_response()
}

async fn peers(State(api): State<Api>) -> Response {
    Json(api.peers().await).into_response()
}

async fn artifacts(State(api): State<Api>, Query(query): Query<RepositoryQuery>) -> Response {
    match query.repository.map(|name| name.parse::<RepoName>()).transpose() {
        Ok(repository) => Json(api.artifacts(repository.as_ref()).await).into_response(),
        Err(e) => ApiError::Invalid(e.to_string()).into_response(),
    }
}

async fn tags(State(api): State<Api>, Query(query): Query<RepositoryQuery>) -> Result<Response, ApiError> {
    let name = query.repository.ok_or_else(|| ApiError::Invalid("?repository= is needed".into()))?;
    let repository: RepoName = name.parse().map_err(|e| ApiError::Invalid(format!("{name:?}: {e}")))?;
    Ok(Json(api.tags(&repository)?).into_response())
}

async fn inspect(State(api): State<Api>, Query(query): Query<ReferenceQuery>) -> Result<Response, ApiError> {
    let reference: Reference = query.reference.parse().map_err(|e| ApiError::Invalid(format!("{e}")))?;
    let tag = reference.tag_or_latest();
    Ok(Json(api.inspect(&reference.repository, Some(&tag), reference.digest).await?).into_response())
}

async fn doctor(State(api): State<Api>) -> Response {
    Json(api.doctor().await).into_response()
}

#[derive(Deserialize)]
struct PullQuery {
    reference: String,
    platform: Option<String>,
}

async fn explain_pull(State(api): State<Api>, Query(query): Query<PullQuery>) -> Result<Response, ApiError> {
    let reference: Reference = query.reference.parse().map_err(|e| ApiError::Invalid(format!("{e}")))?;
    Ok(Json(api.explain(&reference, query.platform).await).into_response())
}

async fn tag_history(
    State(api): State<Api>,
    Query(query): Query<ReferenceQuery>,
) -> Result<Response, ApiError> {
    let reference: Reference = query.reference.parse().map_err(|e| ApiError::Invalid(format!("{e}")))?;
    Ok(Json(api.tag_history(&reference.repository, &reference.tag_or_latest())?).into_response())
}

async fn grant(State(api): State<Api>, Json(request): Json<GrantRequest>) -> Result<Response, ApiError> {
    Ok(Json(api.grant(&request).await?).into_response())
}

async fn budget(State(api): State<Api>) -> Response {
    Json(api.budget()).into_response()
}

async fn change_budget(
    State(api): State<Api>,
    Json(change): Json<BudgetChange>,
) -> Result<Response, ApiError> {
    Ok(Json(api.change_budget(change)?).into_response())
}

async fn reset_budget(State(api): State<Api>, Json(reset): Json<BudgetReset>) -> Response {
    Json(api.reset_budget(reset.spent)).into_response()
}

async fn policies(State(api): State<Api>) -> Response {
    Json(api.policies().await).into_response()
}

async fn apply_policies(State(api): State<Api>, Json(given): Json<Policies>) -> Result<Response, ApiError> {
    Ok(Json(api.apply_policies(given).await?).into_response())
}

async fn delete_policy(State(api): State<Api>, Json(deletion): Json<Deletion>) -> Result<Response, ApiError> {
    Ok(Json(api.delete_policy(&deletion).await?).into_response())
}

async fn coverage(
    State(api): State<Api>,
    Query(query): Query<RepositoryQuery>,
) -> Result<Response, ApiError> {
    let repository = query.repository.map(|name| name.parse::<RepoName>()).transpose();
    let repository = repository.map_err(|e| ApiError::Invalid(e.to_string()))?;
    Ok(Json(api.coverage(repository).await).into_response())
}

#[derive(Deserialize)]
struct ExplainQuery {
    whom: String,
    reference: String,
}

async fn explain(State(api): State<Api>, Query(query): Query<ExplainQuery>) -> Result<Response, ApiError> {
    let reference: Reference = query.reference.parse().map_err(|e| ApiError::Invalid(format!("{e}")))?;
    Ok(Json(api.explain_policy(&query.whom, &reference).await?).into_response())
}

async fn usage(State(api): State<Api>) -> Result<Response, ApiError> {
    Ok(Json(api.usage().await?).into_response())
}

async fn collect(State(api): State<Api>, Json(request): Json<GcRequest>) -> Result<Response, ApiError> {
    Ok(Json(api.collect(&request).await?).into_response())
}

async fn mark(State(api): State<Api>, Json(request): Json<MarkRequest>) -> Result<Response, ApiError> {
    Ok(Json(api.mark(&request).await?).into_response())
}

async fn pin(State(api): State<Api>, Json(request): Json<PinRequest>) -> Result<Response, ApiError> {
    Ok(Json(api.pin(&request).await?).into_response())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = match self {
            ApiError::Invalid(_) => StatusCode::BAD_REQUEST,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::Refused(_) => StatusCode::CONFLICT,
        };
        (code, Json(ApiProblem { error: self.to_string() })).into_response()
    }
}

fn fits(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() <= PATH_MAX
}

/// A short directory of this user's for sockets whose data directory has a long name.
fn runtime_dir() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(|dir| PathBuf::from(dir).join("waystation"))
        .filter(|dir| dir.is_absolute() && dir.as_os_str().len() + 20 <= PATH_MAX)
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/waystation-{uid}")))
}

fn make_private(dir: &Path) -> Result<(), SocketError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => {
            Err(SocketError::Io { path: dir.to_owned(), why })
        }
        _ => Ok(()),
    }
}

/// Whoever can write to the directory could put a socket of their own in the place of ours.
fn check_parent(dir: &Path) -> Result<(), SocketError> {
    let found = fs::symlink_metadata(dir)
        .and_then(|meta| if meta.is_symlink() { fs::metadata(dir) } else { Ok(meta) })
        .map_err(|why| SocketError::Io { path: dir.to_owned(), why })?;
    let wrong = |why| Err(SocketError::Unsafe { path: dir.to_owned(), why });
    let uid = rustix::process::geteuid().as_raw();
    if !found.is_dir() {
        return wrong("is not a directory");
    }
    if found.uid() != uid && found.uid() != 0 {
        return wrong("belongs to another user");
    }
    if found.mode() & 0o002 != 0 {
        return wrong("can be written by everybody");
    }
    Ok(())
}

/// Binds within a directory that nobody else can enter, and moves the socket to its place once its mode is
/// set: at no moment can another user connect.
fn bind_private(path: &Path, dir: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let nest = tempfile::Builder::new().prefix(".s").rand_bytes(6).tempdir_in(dir)?;
    let young = nest.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&young)?;
    fs::set_permissions(&young, fs::Permissions::from_mode(0o600))?;
    fs::rename(&young, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What the system allows for the path of a socket, without the closing zero (`sun_path` is 108 bytes).
const PATH_MAX: usize = 107;
const SOCKET_NAME: &str = "control.sock";
/// Holds the path of the socket where it had to be elsewhere.
const POINTER_NAME: &str = "control.path";

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answer(path: &Path) -> String {
        let mut stream = tokio::net::UnixStream::connect(path).await.expect("connects");
        stream.write_all(b"GET /ping HTTP/1.0\r\n\r\n").await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    async fn serves_and_goes(data_dir: &Path) {
        let socket = LocalSocket::bind(data_dir).expect("binds");
        let path = socket.path().to_owned();
        assert_eq!(locate(data_dir), path);
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        assert!(matches!(LocalSocket::bind(data_dir), Err(SocketError::InUse(_))));
        let stop = CancellationToken::new();
        let router = Router::new().route("/ping", get(|| async { "pong" }));
        let serving = tokio::spawn(socket.serve_router(router, stop.clone()));
        assert!(answer(&path).await.ends_with("pong"));
        stop.cancel();
        serving.await.expect("no panic").expect("clean end");
        assert!(!path.exists() && !data_dir.join(POINTER_NAME).exists());
    }

    #[tokio::test]
    async fn serves_its_owner_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        serves_and_goes(dir.path()).await;
    }

    #[tokio::test]
    async fn a_long_data_directory_gets_a_short_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let long = dir.path().join("d".repeat(120));
        fs::create_dir(&long).expect("made");
        serves_and_goes(&long).await;
    }

    #[tokio::test]
    async fn replaces_what_a_dead_node_left() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_NAME)).expect("binds"));
        LocalSocket::bind(dir.path()).expect("replaces it");
    }

    #[tokio::test]
    async fn refuses_a_directory_that_all_can_write() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("set");
        assert!(matches!(LocalSocket::bind(dir.path()), Err(SocketError::Unsafe { .. })));
    }
}
