//! Access as a whole: what clients of each kind are told, by requests and by tokens.

use axum::http::{HeaderMap, HeaderValue};

use super::*;

const HOME: Peer = Peer { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), secure: true };
const RULES: &str = "\
    [[rule]]\nusers = [\"anonymous\"]\nrepositories = [\"public/**\"]\nactions = [\"pull\"]\n\
    [[rule]]\nusers = [\"ann\"]\nrepositories = [\"team/**\"]\nactions = [\"pull\", \"push\"]\n\
    [[rule]]\nusers = [\"bob\"]\nrepositories = [\"bob/**\"]\nactions = [\"admin\"]\n";

struct World {
    access: Access,
    dir: tempfile::TempDir,
}

impl World {
    fn new(rules: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut auth: AuthConfig = toml::from_str(rules).expect("well formed");
        auth.htpasswd = Some(dir.path().join("users"));
        write_users(dir.path(), &[("ann", "one"), ("bob", "two")]);
        let access =
            Access::open(&auth, LimitsConfig::default(), Anonymous::None, dir.path(), &Metrics::new())
                .expect("opens");
        World { access, dir }
    }

    async fn admit(&self, authorization: Option<&str>, need: &Need) -> Result<Caller, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        let admitted = self.access.admit(&mut headers, place(), HOME, need).await;
        assert!(!headers.contains_key(header::AUTHORIZATION), "credentials stay in the headers");
        admitted
    }

    async fn token(&self, proof: Option<Proof>, scope: &str, offline: bool) -> Result<Issued, Refusal> {
        let scopes = Scopes::parse([scope].into_iter());
        self.access.token(TokenRequest { proof, scopes, offline }, place(), HOME).await
    }
}

fn write_users(dir: &Path, users: &[(&str, &str)]) {
    let line = |(user, password): &(&str, &str)| {
        let hash = bcrypt::hash_with_salt(password, 4, [9; 16]).expect("hashed");
        format!("{user}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
    };
    std::fs::write(dir.join("users"), users.iter().map(line).collect::<String>()).expect("written");
}

fn place() -> Place {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("node.example"));
    Place::of(&axum::http::Uri::from_static("/v2/"), &headers, true, None)
}

fn given(user: &str, password: &str) -> Credentials {
    Credentials::new(user.into(), Secret::new(password)).expect("short")
}

fn password(user: &str, password: &str) -> Option<Proof> {
    Some(Proof::Password(given(user, password)))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

fn need(action: Action, repository: &str) -> Need {
    Need::Repository(action, repository.parse().expect("valid"), None)
}

fn challenge(result: Result<Caller, Refusal>) -> String {
    match result.map(|_| ()) {
        Err(Refusal::Login { challenge, .. }) => challenge,
        other => panic!("no challenge: {other:?}"),
    }
}

#[tokio::test]
async fn who_is_in_by_password() {
    let world = World::new(RULES);
    let (ann, wrong, nobody) = (basic("ann", "one"), basic("ann", "two"), basic("eve", "one"));
    let pull = |repository| need(Action::Pull, repository);
    assert!(world.admit(Some(&ann), &Need::Ping).await.is_ok());
    assert!(world.admit(Some(&ann), &need(Action::Push, "team/a")).await.is_ok());
    let denied = world.admit(Some(&ann), &need(Action::Delete, "team/a")).await;
    assert!(matches!(denied, Err(Refusal::Denied(_))));
    assert!(world.admit(None, &pull("public/a")).await.is_ok());
    assert!(world.admit(Some("Basic Og=="), &pull("public/a")).await.is_ok());
    let bearer = "Bearer realm=\"https://node.example/token\",service=\"waystation\"";
    assert_eq!(challenge(world.admit(None, &Need::Ping).await), bearer);
    assert_eq!(
        challenge(world.admit(None, &need(Action::Push, "public/a")).await),
        format!("{bearer},scope=\"repository:public/a:pull,push\"")
    );
    for bad in [&wrong, &nobody, "Basic ???", "Digest x", "x"] {
        challenge(world.admit(Some(bad), &pull("public/a")).await);
    }
    let caller = world.admit(Some(&ann), &Need::Catalog).await.expect("in");
    let sees = |name: &str| caller.sees(&name.parse().expect("valid"));
    assert!(sees("public/a") && sees("team/a") && !sees("bob/a"));
    assert!(caller.basic().is_none(), "a local password is never for an upstream");
}

#[tokio::test]
async fn tokens_are_good_for_what_they_say_and_the_rules_allow() {
    let world = World::new(RULES);
    let scope = "repository:team/a:pull,push,delete repository:bob/x:pull registry:catalog:*";
    let issued = world.token(password("ann", "one"), scope, false).await.expect("issued");
    assert_eq!(issued.scopes.text(), "registry:catalog:* repository:team/a:pull,push");
    assert!(issued.refresh.is_none());
    let bearer = format!("Bearer {}", issued.token);
    let caller = world.admit(Some(&bearer), &need(Action::Push, "team/a")).await.expect("in");
    assert_eq!(caller.identity().user(), Some("ann"));
    // Mounting from where the token does not lead is not told apart from nothing being there.
    let may = |name: &str| caller.may(Action::Pull, &name.parse().expect("valid"));
    assert!(may("team/a") && !may("team/b") && !may("bob/x"));
    assert!(world.admit(Some(&bearer), &Need::Catalog).await.is_ok());
    let more = challenge(world.admit(Some(&bearer), &need(Action::Pull, "team/b")).await);
    assert!(
        more.contains("scope=\"repository:team/b:pull\"") && more.contains("insufficient_scope"),
        "{more}"
    );
    let denied = world.admit(Some(&bearer), &need(Action::Pull, "bob/x")).await;
    assert!(matches!(denied, Err(Refusal::Denied(_))));
    let changed = format!("Bearer {}A", issued.token);
    assert!(challenge(world.admit(Some(&changed), &Need::Ping).await).contains("invalid_token"));
    assert!(matches!(world.token(password("ann", "no"), scope, false).await, Err(Refusal::Login { .. })));
    // Nobody in particular gets what everybody may.
    let scope = "repository:public/a:pull,push repository:team/a:pull";
    let issued = world.token(None, scope, true).await.expect("issued");
    assert_eq!(issued.scopes.text(), "repository:public/a:pull");
    assert!(issued.refresh.is_none());
    let bearer = format!("Bearer {}", issued.token);
    assert!(world.admit(Some(&bearer), &Need::Ping).await.is_ok());
    assert!(world.admit(Some(&bearer), &need(Action::Pull, "public/a")).await.is_ok());
    challenge(world.admit(Some(&bearer), &need(Action::Pull, "team/a")).await);
}

#[tokio::test]
async fn tokens_end_with_the_password() {
    let world = World::new(RULES);
    let issued = world.token(password("ann", "one"), "repository:team/a:pull", true).await.expect("issued");
    let refresh = issued.refresh.expect("asked for");
    let again = |refresh: &str| Some(Proof::Refresh(Secret::new(refresh.to_owned())));
    let fresh = world.token(again(&refresh), "repository:team/a:push", false).await.expect("issued");
    assert_eq!(fresh.scopes.text(), "repository:team/a:push");
    // One for requests fetches no others, and the other way round.
    assert!(world.token(again(&issued.token), "", false).await.is_err());
    challenge(world.admit(Some(&format!("Bearer {refresh}")), &Need::Ping).await);
    let bearer = format!("Bearer {}", fresh.token);
    assert!(world.admit(Some(&bearer), &Need::Ping).await.is_ok());
    write_users(world.dir.path(), &[("ann", "three"), ("bob", "two")]);
    world.access.refresh();
    challenge(world.admit(Some(&bearer), &Need::Ping).await);
    challenge(world.admit(Some(&basic("ann", "one")), &Need::Ping).await);
    assert!(world.token(again(&refresh), "", false).await.is_err());
}

#[tokio::test]
async fn without_users_nobody_is_asked() {
    let access = Access::anonymous(Anonymous::Pull, &Metrics::new());
    let admit = async |need: Need| {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic c3RhbGU6bG9naW4="));
        access.admit(&mut headers, place(), HOME, &need).await.map(|_| ())
    };
    assert_eq!(admit(Need::Ping).await, Ok(()));
    assert_eq!(admit(need(Action::Pull, "a")).await, Ok(()));
    let Err(Refusal::Denied(message)) = admit(need(Action::Push, "a")).await else { panic!("denied") };
    assert!(message.contains("--anonymous push"), "{message}");
}

/// Leaves `mirror/**` to an upstream.
struct Mirror;

impl Entitlement for Mirror {
    fn meanings(&self, _: &RepoName) -> Vec<RepoName> {
        Vec::new()
    }

    fn authority(&self, repository: &RepoName) -> Authority {
        let left = repository.as_str().starts_with("mirror/");
        if left { Authority::Upstream } else { Authority::Local }
    }

    fn leaves_any(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn what_is_left_to_an_upstream_gets_the_clients_own_credentials() {
    let mut world = World::new(RULES);
    world.access = world.access.clone().with_entitlement(Arc::new(Mirror));
    let (pull, elsewhere) = (need(Action::Pull, "mirror/a"), need(Action::Pull, "team/a"));
    let stranger = basic("up", "stream");
    let has =
        |caller: &Caller| caller.basic().map(|(user, secret)| (user.to_owned(), secret.expose().to_owned()));
    let expected = Some(("up".to_owned(), "stream".to_owned()));
    assert_eq!(has(&world.admit(Some(&stranger), &pull).await.expect("left")), expected);
    assert!(world.admit(Some(&stranger), &Need::Ping).await.is_ok());
    challenge(world.admit(Some(&stranger), &elsewhere).await);
    challenge(world.admit(Some(&stranger), &need(Action::Push, "mirror/a")).await);
    // By token: the credentials wait here and are not in it.
    let issued =
        world.token(password("up", "stream"), "repository:mirror/a:pull,push", true).await.expect("left");
    assert_eq!((issued.scopes.text().as_str(), issued.refresh), ("repository:mirror/a:pull", None));
    let caller = world.admit(Some(&format!("Bearer {}", issued.token)), &pull).await.expect("left");
    assert_eq!(has(&caller), expected);
    assert!(world.token(password("up", "stream"), "repository:team/a:pull", false).await.is_err());
    // A user of this node is one there too, and a wrong password is not tried on others.
    assert!(world.admit(Some(&basic("ann", "one")), &pull).await.expect("in").basic().is_none());
    challenge(world.admit(Some(&basic("ann", "two")), &pull).await);
    // Anybody may ask; whoever serves it has to ask the upstream.
    assert!(world.admit(None, &pull).await.expect("left").basic().is_none());
    assert!(!caller.sees(&"mirror/a".parse().expect("valid")));
}
