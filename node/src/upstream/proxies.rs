//! The proxies that the usual variables name, read as the HTTP client reads them: which there are, which one a URL is
//! asked through, and whose fault it is where that fails.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

/// The proxies of this process's variables.
pub struct Proxies {
    matcher: Option<Matcher>,
}

impl Proxies {
    /// What the variables say now.
    pub fn from_env() -> Self {
        Proxies { matcher: (!is_nothing_proxied()).then(Matcher::from_env) }
    }

    /// `host:port` of the proxy between this node and a URL.
    pub fn between(&self, url: &Url) -> Option<String> {
        let uri = url.as_str().parse().ok()?;
        let found = self.matcher.as_ref()?.intercept(&uri)?;
        // Without what may be a password.
        let authority = found.uri().authority()?.as_str();
        Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned())
    }
}

/// Whether `NO_PROXY` has a lone `*`: nothing goes through a proxy then. The client takes that for all names, but
/// not for addresses.
pub fn is_nothing_proxied() -> bool {
    let list = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok());
    list.is_some_and(|list| excepts_all(&list))
}

/// Hosts of the proxies.
pub fn hosts() -> Vec<String> {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let values =
        names.iter().flat_map(|name| [std::env::var(name), std::env::var(name.to_lowercase())]).flatten();
    let host = |text: String| {
        let url: Url =
            if text.contains("://") { text.parse() } else { format!("http://{text}").parse() }.ok()?;
        url.host_str().map(str::to_owned)
    };
    values.filter_map(host).collect()
}

/// Whether a request failed on its way to, or at, the proxy, rather than at the host behind it. A host's own TLS is
/// spoken after the proxy has done its part.
pub fn is_at_fault(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(this) = cause {
        let inner = this.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if this.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return false;
        }
        cause = this.source();
    }
    error.is_connect()
}

fn excepts_all(list: &str) -> bool {
    list.split(',').any(|entry| entry.trim() == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_star_excepts_everything() {
        for (list, all) in
            [("*", true), ("a.example, * ", true), ("*.example", false), ("", false), ("10.0.0.1", false)]
        {
            assert_eq!(excepts_all(list), all, "{list:?}");
        }
    }

    #[test]
    fn a_proxy_is_named_without_its_password() {
        let matcher = Matcher::builder().http("http://gate:sesame@10.1.2.3:3128").no("b.example").build();
        let proxies = Proxies { matcher: Some(matcher) };
        let between = |url: &str| proxies.between(&url.parse().expect("a URL"));
        assert_eq!(between("http://a.example/v2/").as_deref(), Some("10.1.2.3:3128"));
        assert_eq!(between("http://b.example/v2/"), None);
        assert_eq!(between("https://a.example/v2/"), None);
    }
}
