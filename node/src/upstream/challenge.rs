//! What `WWW-Authenticate` says (RFC 9110, 11.6.1): a list of challenges, each a scheme with a token or with a list
//! of parameters. Owns the grammar; what to do about a challenge is [`super::token`]'s.

/// One challenge. Scheme and names of parameters are in lowercase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Such as `bearer`.
    pub scheme: String,
    /// In the order given; a name given twice is there twice.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of this name (lowercase).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one header's value. What does not follow the grammar ends the reading: the challenges before it count.
pub fn parse(value: &str) -> Vec<Challenge> {
    let mut reader = Reader { rest: value };
    let mut found: Vec<Challenge> = Vec::new();
    while found.len() < MAX_CHALLENGES {
        reader.skip(|c| matches!(c, ' ' | '\t' | ','));
        let Some(word) = reader.token() else { break };
        let spaces = reader.skip(|c| matches!(c, ' ' | '\t'));
        match (found.last_mut(), reader.rest.starts_with('=')) {
            // `name=value`: belongs to the challenge before.
            (Some(challenge), true) => {
                reader.rest = &reader.rest[1..];
                reader.skip(|c| matches!(c, ' ' | '\t'));
                let Some(text) = reader.value() else { break };
                if challenge.parameters.len() == MAX_PARAMETERS {
                    break;
                }
                challenge.parameters.push((word.to_ascii_lowercase(), text));
                if !reader.at_end_of_item() {
                    break;
                }
            }
            (None, true) => break,
            (_, false) => {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                if spaces > 0 && !reader.starts_parameter() {
                    // A token68, which no scheme that is understood here uses.
                    reader.skip(|c| c.is_ascii_alphanumeric() || "-._~+/=".contains(c));
                }
                if spaces == 0 && !reader.at_end_of_item() {
                    found.pop();
                    break;
                }
            }
        }
    }
    found
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, wanted: impl Fn(char) -> bool) -> usize {
        let rest = self.rest.trim_start_matches(wanted);
        let skipped = self.rest.len() - rest.len();
        self.rest = rest;
        skipped
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.rest.find(|c| !is_token(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// A token or a quoted string without its quotes. Registries also leave out quotes around URLs: whatever
    /// stands until a comma or blank is taken.
    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', ' ', '\t', '"']).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            return (!word.is_empty()).then(|| word.to_owned());
        };
        let mut text = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Some(text);
                }
                '\\' => text.push(chars.next()?.1),
                c => text.push(c),
            }
        }
        None
    }

    fn starts_parameter(&self) -> bool {
        let mut ahead = Reader { rest: self.rest };
        if ahead.token().is_none() {
            return true;
        }
        ahead.skip(|c| matches!(c, ' ' | '\t'));
        // A token68 may end in `=`, but nothing follows it there.
        let after = ahead.rest.trim_start_matches('=');
        ahead.rest.len() - after.len() == 1
            && !after.trim_start().is_empty()
            && !after.trim_start().starts_with(',')
    }

    fn at_end_of_item(&mut self) -> bool {
        self.skip(|c| matches!(c, ' ' | '\t'));
        self.rest.is_empty() || self.rest.starts_with(',')
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// More schemes than anybody offers.
const MAX_CHALLENGES: usize = 8;
/// More parameters than any scheme has.
const MAX_PARAMETERS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(value: &str) -> String {
        let show = |c: Challenge| {
            let parameters: Vec<String> = c.parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{}[{}]", c.scheme, parameters.join("|"))
        };
        parse(value).into_iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn challenges_of_the_world() {
        let table = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
                "bearer[realm=https://auth.docker.io/token|service=registry.docker.io|scope=repository:library/alpine:pull]",
            ),
            (
                r#"Bearer realm="https://a/t",scope="repository:a:pull repository:b:pull,push",error="insufficient_scope""#,
                "bearer[realm=https://a/t|scope=repository:a:pull repository:b:pull,push|error=insufficient_scope]",
            ),
            (
                r#"Basic realm="a \"quoted\" realm, with comma""#,
                r#"basic[realm=a "quoted" realm, with comma]"#,
            ),
            ("Basic", "basic[]"),
            ("Basic realm=Registry", "basic[realm=Registry]"),
            (r#"BEARER Realm = "x" , Service=y"#, "bearer[realm=x|service=y]"),
            (
                "Bearer realm=https://a.example/token,service=s",
                "bearer[realm=https://a.example/token|service=s]",
            ),
            (r#"Basic realm="a", Bearer realm="b", service="c""#, "basic[realm=a] bearer[realm=b|service=c]"),
            (r#"Negotiate, Basic realm="x""#, "negotiate[] basic[realm=x]"),
            (r#"Negotiate YWJj=, Basic realm="x""#, "negotiate[] basic[realm=x]"),
            (r#"Negotiate YWJj==, Basic realm="x""#, "negotiate[] basic[realm=x]"),
            (r#", , Basic realm="x" ,, "#, "basic[realm=x]"),
            (r#"Bearer realm="open"#, "bearer[]"),
            (r#"Bearer realm="x" junk"#, "bearer[realm=x]"),
            (r#"realm="x""#, ""),
            ("", ""),
            ("\u{fc}", ""),
        ];
        for (value, expected) in table {
            assert_eq!(show(value), expected, "{value}");
        }
        let many = "a=b,".repeat(100);
        assert!(parse(&format!("Bearer {many}"))[0].parameters.len() <= MAX_PARAMETERS);
        assert!(parse(&"Basic, ".repeat(100)).len() <= MAX_CHALLENGES);
    }

    proptest! {
        #[test]
        fn anything_ends_without_panic(value in "[ -~\\\\\"=,]{0,200}|\\PC{0,80}") {
            let found = parse(&value);
            prop_assert!(found.len() <= MAX_CHALLENGES);
            for challenge in found {
                prop_assert!(!challenge.scheme.is_empty());
                prop_assert!(challenge.parameters.iter().all(|(name, _)| !name.is_empty()));
            }
        }

        #[test]
        fn what_is_written_by_the_rules_is_read_back(
            schemes in proptest::collection::vec(
                ("[A-Za-z][A-Za-z0-9-]{0,8}", proptest::collection::vec(("[a-z]{1,8}", "[ -~]{0,30}"), 0..5)), 1..4),
            gap in "[ \t]{0,2}",
        ) {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let written: Vec<String> = schemes.iter().map(|(scheme, parameters)| {
                let listed: Vec<String> =
                    parameters.iter().map(|(k, v)| format!("{k}{gap}={gap}\"{}\"", quote(v))).collect();
                format!("{scheme} {}", listed.join(&format!("{gap},{gap}"))).trim_end().to_owned()
            }).collect();
            let expected: Vec<Challenge> = schemes.into_iter().map(|(scheme, parameters)| {
                Challenge { scheme: scheme.to_ascii_lowercase(), parameters }
            }).collect();
            prop_assert_eq!(parse(&written.join(", ")), expected);
        }
    }
}
