//! Where clients fetch tokens: GET with Basic, or POST of a form (distribution token specification, and its
//! OAuth2 form). What a token is good for is decided by [`crate::access`].

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, Uri, header, request::Parts},
    response::Response,
};
use serde_json::json;
use waystation_oci::scope::Scopes;
use zeroize::Zeroize;

use super::{
    Registry,
    error::{ApiError, Code},
    pace::Paced,
    parameters, reply,
};
use crate::{
    access::{Issued, Peer, Proof, TokenRequest, challenge::Place, credentials::Credentials},
    secret::Secret,
};

impl Registry {
    /// Answers with a token.
    pub(super) async fn token(&self, request: Request, peer: Peer) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let place = Place::of(&parts.uri, &parts.headers, peer.secure, None);
        let wanted = match parts.method {
            Method::GET => by_query(&parts)?,
            Method::POST => by_form(&parts.uri, body).await?,
            _ => {
                return Err(ApiError::new(405, Code::Unsupported, "tokens are fetched with GET or POST")
                    .with_header(header::ALLOW, "GET, POST"));
            }
        };
        let issued = self.access.token(wanted, place, peer).await?;
        Ok(answer(&issued))
    }
}

fn by_query(parts: &Parts) -> Result<TokenRequest, ApiError> {
    let query = parameters(&parts.uri)?;
    let given = match parts.headers.get(header::AUTHORIZATION) {
        None => None,
        Some(given) => {
            let text = given.to_str().ok().and_then(|text| text.split_once(' '));
            let encoded = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
            let read = encoded.and_then(|(_, rest)| Credentials::from_basic(rest));
            Some(read.ok_or_else(|| unreadable("the Authorization header is not Basic"))?)
        }
    };
    let proof = given.filter(|given| !given.is_empty()).map(Proof::Password);
    let offline = query.iter().any(|(key, value)| key == "offline_token" && value == "true");
    let scopes = query.iter().filter(|(key, _)| key == "scope").map(|(_, value)| value.as_str());
    Ok(TokenRequest { proof, scopes: Scopes::parse(scopes), offline })
}

async fn by_form(uri: &Uri, body: Body) -> Result<TokenRequest, ApiError> {
    if uri.query().is_some_and(|query| query.contains("password")) {
        return Err(unreadable("a password in the address is in too many logs; send it in the body"));
    }
    let bytes = to_bytes(Body::new(Paced::new(body)), FORM_MAX)
        .await
        .map_err(|_| unreadable("the form is too long or was cut"))?;
    let (mut kind, mut user, mut password, mut refresh) = (String::new(), None, None, None);
    let (mut scopes, mut offline) = (Vec::new(), false);
    for (key, value) in form_urlencoded::parse(&bytes) {
        let value = value.into_owned();
        match &*key {
            "grant_type" => kind = value,
            "username" => user = Some(value),
            "password" => password = Some(Secret::new(value)),
            "refresh_token" => refresh = Some(Secret::new(value)),
            "scope" => scopes.push(value),
            "access_type" => offline = value == "offline",
            _ => {}
        }
    }
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.zeroize();
    }
    let proof = match (kind.as_str(), user, password, refresh) {
        ("password", Some(user), Some(password), _) => Proof::Password(
            Credentials::new(user, password).ok_or_else(|| unreadable("user or password is too long"))?,
        ),
        ("refresh_token", _, _, Some(refresh)) => Proof::Refresh(refresh),
        _ => return Err(unreadable("grant_type must be password or refresh_token, with what belongs to it")),
    };
    Ok(TokenRequest { proof: Some(proof), scopes: Scopes::parse(scopes.iter().map(String::as_str)), offline })
}

fn answer(issued: &Issued) -> Response {
    let since = std::time::UNIX_EPOCH + std::time::Duration::from_secs(issued.issued);
    let mut body = json!({
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.life.as_secs(),
        "issued_at": humantime::format_rfc3339_seconds(since).to_string(),
        "scope": issued.scopes.text(),
    });
    if let Some(refresh) = &issued.refresh {
        body["refresh_token"] = refresh.as_str().into();
    }
    let mut response = reply::json("application/json", &body);
    reply::set(response.headers_mut(), header::CACHE_CONTROL, "no-store");
    response
}

fn unreadable(why: &str) -> ApiError {
    ApiError::bad(Code::Unsupported, format!("the request for a token cannot be understood: {why}"))
}

/// Longest form in bytes: the longest token and many scopes.
const FORM_MAX: usize = 64 * 1024;
