//! Who may do what in which repository. Pure: identities and names in, yes or no out.

use std::{collections::BTreeSet, fmt, sync::Arc};

use waystation_oci::scope::{Action, Actions};
use waystation_proto::{RepoName, glob::Glob};

use super::config::AuthConfig;
use crate::registry::Anonymous;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A client that did not say, or could not prove, who it is.
    Anonymous,
    /// A user who proved it.
    User(Arc<str>),
    /// The operator, at this node's local socket: may do everything.
    Operator,
}

/// The rules of a node.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    everyone: bool,
    any_user: bool,
    users: BTreeSet<String>,
    repositories: Vec<Glob>,
    actions: Actions,
}

impl Identity {
    /// The name, where there is one.
    pub fn user(&self) -> Option<&str> {
        match self {
            Identity::User(name) => Some(name),
            Identity::Anonymous | Identity::Operator => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Anonymous => f.write_str(ANONYMOUS),
            Identity::User(name) => write!(f, "user {name}"),
            Identity::Operator => f.write_str("the operator"),
        }
    }
}

impl Rules {
    /// What a configuration says, with what clients may do that do not say who they are.
    pub fn new(config: &AuthConfig, anonymous: Anonymous) -> Self {
        let everywhere = || vec![Glob::everything()];
        let mut rules: Vec<Rule> = config
            .rules
            .iter()
            .map(|rule| Rule {
                everyone: rule.users.iter().any(|user| user == ANONYMOUS),
                any_user: rule.users.iter().any(|user| user == ANY_USER),
                users: rule
                    .groups
                    .iter()
                    .filter_map(|group| config.groups.get(group))
                    .flatten()
                    .chain(&rule.users)
                    .cloned()
                    .collect(),
                repositories: rule.repositories.clone(),
                actions: Actions::of(&rule.actions),
            })
            .collect();
        let blanket = |everyone, any_user, actions| Rule {
            everyone,
            any_user,
            users: BTreeSet::new(),
            repositories: everywhere(),
            actions,
        };
        match anonymous {
            Anonymous::None => {}
            Anonymous::Pull => rules.push(blanket(true, false, Actions::of(&[Action::Pull]))),
            Anonymous::Push => {
                let actions = Actions::of(&[Action::Pull, Action::Push, Action::Delete]);
                rules.push(blanket(true, false, actions));
            }
        }
        if config.htpasswd.is_some() && config.rules.is_empty() {
            rules.push(blanket(false, true, Actions::ALL));
        }
        Rules { rules }
    }

    /// Whether they may do that there. What anybody may, a user may too.
    pub fn allow(&self, who: &Identity, action: Action, repository: &RepoName) -> bool {
        let user = match who {
            Identity::Operator => return true,
            Identity::Anonymous => None,
            Identity::User(name) => Some(&**name),
        };
        self.rules.iter().any(|rule| {
            let meant = rule.everyone || user.is_some_and(|name| rule.any_user || rule.users.contains(name));
            meant
                && rule.actions.contains(action)
                && rule.repositories.iter().any(|glob| glob.matches(repository.as_str()))
        })
    }
}

/// In a rule: whoever asks.
pub const ANONYMOUS: &str = "anonymous";
/// In a rule: whoever has logged in.
pub const ANY_USER: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> AuthConfig {
        toml::from_str(&format!("htpasswd = \"h\"\n{text}")).expect("well formed")
    }

    fn user(name: &str) -> Identity {
        Identity::User(name.into())
    }

    #[test]
    fn rules_name_users_groups_and_everyone() {
        let text = "groups = { ops = [\"olga\"] }\n\
            [[rule]]\nusers = [\"anonymous\"]\nrepositories = [\"public/**\"]\nactions = [\"pull\"]\n\
            [[rule]]\nusers = [\"*\"]\nrepositories = [\"base/*\"]\nactions = [\"pull\"]\n\
            [[rule]]\nusers = [\"ann\"]\nrepositories = [\"team/**\"]\nactions = [\"pull\", \"push\"]\n\
            [[rule]]\ngroups = [\"ops\"]\nrepositories = [\"**\"]\nactions = [\"admin\"]\n";
        let rules = Rules::new(&config(text), Anonymous::None);
        let table = [
            (Identity::Anonymous, Action::Pull, "public/a", true),
            (Identity::Anonymous, Action::Push, "public/a", false),
            (Identity::Anonymous, Action::Pull, "base/a", false),
            (user("ann"), Action::Pull, "public/a/b", true),
            (user("ann"), Action::Pull, "base/a", true),
            (user("bob"), Action::Pull, "base/a", true),
            (user("bob"), Action::Pull, "team/a", false),
            (user("ann"), Action::Push, "team/a/b", true),
            (user("ann"), Action::Delete, "team/a", false),
            (user("ann"), Action::Push, "teams", false),
            (user("olga"), Action::Delete, "team/a", true),
            (user("olga"), Action::Push, "x", true),
            // A user with a name that means something else in rules gains nothing.
            (user("ops"), Action::Push, "x", false),
            (Identity::Operator, Action::Admin, "x", true),
        ];
        for (who, action, repository, expected) in table {
            let name = repository.parse().expect("valid");
            assert_eq!(rules.allow(&who, action, &name), expected, "{who} {action:?} {repository}");
        }
    }

    #[test]
    fn without_rules_users_may_everything_and_others_what_was_said() {
        let name: RepoName = "a/b".parse().expect("valid");
        let may = |rules: &Rules, who: &Identity| {
            Action::ALL.into_iter().filter(|action| rules.allow(who, *action, &name)).count()
        };
        for (anonymous, expected) in [(Anonymous::None, 0), (Anonymous::Pull, 1), (Anonymous::Push, 3)] {
            let rules = Rules::new(&config(""), anonymous);
            assert_eq!(may(&rules, &Identity::Anonymous), expected);
            assert_eq!(may(&rules, &user("ann")), 4);
            let nobody = Rules::new(&AuthConfig::default(), anonymous);
            assert_eq!(may(&nobody, &user("ann")), expected);
        }
    }
}
