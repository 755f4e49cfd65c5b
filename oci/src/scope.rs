//! What a token is asked for and good for: actions in repositories, as scopes in the form of the distribution's
//! token specification (`repository:team/app:pull,push`, `registry:catalog:*`). Who may do what is the node's to say.

use serde::{Deserialize, Serialize};
use waystation_proto::RepoName;

/// What can be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read.
    Pull,
    /// Upload and tag.
    Push,
    /// Remove.
    Delete,
    /// All of these.
    Admin,
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions(u8);

/// What a token lets its bearer do, if the rules let the bearer do it too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scopes {
    catalog: bool,
    repositories: Vec<(RepoName, Actions)>,
}

impl Scopes {
    /// Reads scopes, several in one text by blanks. What has no meaning here is left out, as the
    /// specification wants it; so is what is beyond the most that one token carries.
    pub fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut scopes = Scopes::default();
        for text in texts.flat_map(str::split_whitespace) {
            let (Some((kind, rest)), Some((_, words))) = (text.split_once(':'), text.rsplit_once(':')) else {
                continue;
            };
            let name = rest.strip_suffix(words).and_then(|name| name.strip_suffix(':')).unwrap_or_default();
            // A class may follow in brackets, as in `repository(plugin)`.
            match kind.split('(').next() {
                Some("registry") if name == "catalog" => scopes.catalog = true,
                Some("repository") => {
                    if let Ok(name) = name.parse() {
                        scopes.add(name, actions(words));
                    }
                }
                _ => {}
            }
        }
        scopes
    }

    /// Adds actions in a repository.
    pub fn add(&mut self, repository: RepoName, actions: Actions) {
        if let Some((_, known)) = self.repositories.iter_mut().find(|(name, _)| *name == repository) {
            *known = Action::ALL.into_iter().filter(|a| actions.contains(*a)).fold(*known, Actions::with);
        } else if self.repositories.len() < SCOPES_MAX {
            self.repositories.push((repository, actions));
        }
    }

    /// What of it `keep` lets pass.
    #[must_use]
    pub fn filter(mut self, keep: impl Fn(Action, &RepoName) -> bool) -> Self {
        for (name, actions) in &mut self.repositories {
            *actions = actions.filter(|action| keep(action, name));
        }
        self.repositories.retain(|(_, actions)| !actions.is_empty());
        self
    }

    /// Whether it is good for that.
    pub fn cover(&self, action: Action, repository: &RepoName) -> bool {
        self.repositories.iter().any(|(name, actions)| name == repository && actions.contains(action))
    }

    /// Whether it is good for the list of repositories.
    pub fn cover_catalog(&self) -> bool {
        self.catalog
    }

    /// The repositories asked for.
    pub fn repositories(&self) -> impl Iterator<Item = &RepoName> {
        self.repositories.iter().map(|(name, _)| name)
    }

    /// As text, by blanks.
    pub fn text(&self) -> String {
        let catalog = self.catalog.then(|| "registry:catalog:*".to_owned());
        let each =
            self.repositories.iter().map(|(name, actions)| format!("repository:{name}:{}", actions.words()));
        catalog.into_iter().chain(each).collect::<Vec<_>>().join(" ")
    }
}

impl Action {
    /// Every action that a client can ask for by name.
    pub const ALL: [Action; 4] = [Action::Pull, Action::Push, Action::Delete, Action::Admin];

    /// As rules, scopes and answers say it.
    pub fn word(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
            Action::Admin => "admin",
        }
    }
}

impl Actions {
    /// None.
    pub const NONE: Actions = Actions(0);
    /// All.
    pub const ALL: Actions = Actions(0b1111);

    /// These.
    pub fn of(actions: &[Action]) -> Self {
        actions.iter().fold(Actions::NONE, |set, action| set.with(*action))
    }

    /// With one more; who administers may do all.
    #[must_use]
    pub fn with(self, action: Action) -> Self {
        if action == Action::Admin { Actions::ALL } else { Actions(self.0 | 1 << action as u8) }
    }

    /// Whether it is one of them.
    pub fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those for which `keep` holds.
    #[must_use]
    pub fn filter(self, keep: impl Fn(Action) -> bool) -> Self {
        let kept = Action::ALL.into_iter().filter(|action| self.contains(*action) && keep(*action));
        Actions(kept.fold(0, |bits, action| bits | 1 << action as u8))
    }

    /// Their words, by commas.
    pub fn words(self) -> String {
        let words: Vec<_> = Action::ALL.into_iter().filter(|a| self.contains(*a)).map(Action::word).collect();
        words.join(",")
    }
}

fn actions(words: &str) -> Actions {
    words.split(',').fold(Actions::NONE, |set, word| match word {
        "*" => Actions::ALL,
        _ => Action::ALL
            .into_iter()
            .find(|action| action.word() == word)
            .map_or(set, |action| set.with(action)),
    })
}

/// Most repositories in one token: clients ask for one, or two to mount.
const SCOPES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> String {
        Scopes::parse(texts.iter().copied()).text()
    }

    #[test]
    fn forms_that_clients_send() {
        let table: [(&[&str], &str); 9] = [
            (&["repository:a/b:pull"], "repository:a/b:pull"),
            (&["repository:a:push,pull", "repository:b:pull"], "repository:a:pull,push repository:b:pull"),
            (&["repository:a:pull repository:b:pull,push"], "repository:a:pull repository:b:pull,push"),
            (&["repository:a:pull", "repository:a:push"], "repository:a:pull,push"),
            (&["repository:a:*"], "repository:a:pull,push,delete,admin"),
            (&["registry:catalog:*"], "registry:catalog:*"),
            (&["repository(plugin):a:pull"], "repository:a:pull"),
            (&["repository:a:pull,fly"], "repository:a:pull"),
            (
                &[
                    "",
                    "x",
                    "repository",
                    "repository:",
                    "repository:A:pull",
                    "other:a:pull",
                    "repository:a:",
                    "::",
                    ":",
                ],
                "repository:a:",
            ),
        ];
        for (texts, expected) in table {
            assert_eq!(parsed(texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn is_bounded_and_filtered() {
        let many: Vec<String> = (0..100).map(|n| format!("repository:r{n}:pull,push")).collect();
        let scopes = Scopes::parse(many.iter().map(String::as_str));
        assert_eq!(scopes.repositories().count(), SCOPES_MAX);
        let one: RepoName = "r1".parse().expect("valid");
        let kept = scopes.filter(|action, name| action == Action::Pull && *name == one);
        assert_eq!(kept.text(), "repository:r1:pull");
        assert!(kept.cover(Action::Pull, &one) && !kept.cover(Action::Push, &one) && !kept.cover_catalog());
    }

    #[test]
    fn sets_of_actions() {
        assert_eq!(Actions::of(&[Action::Push, Action::Pull]).words(), "pull,push");
        assert_eq!(Actions::of(&[Action::Admin]), Actions::ALL);
        assert_eq!(Actions::ALL.filter(|action| action == Action::Pull).words(), "pull");
        assert!(Actions::ALL.filter(|_| false).is_empty());
    }
}
