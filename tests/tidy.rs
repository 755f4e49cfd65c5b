//! The house rules that no other tool checks: sizes, file heads, forbidden words, directions of dependency,
//! and that documents name what exists. Exceptions are listed by name with their reason; one that is no
//! longer needed fails too.
#![allow(clippy::unwrap_used, reason = "a failing check may panic")]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Variants of an error enum.
const ERROR_VARIANTS_MAX: usize = 8;

/// (file, function, reason)
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];
/// (file, reason)
const LONG_FILES: &[(&str, &str)] = &[];
/// The contract between proto and its drivers is one file with everything in it.
const ERROR_ENUM_HOME: &str = "proto/src/event.rs";
/// What proto may depend on: pure code, no IO, no clock.
const PROTO_DEPENDENCIES: &[&str] =
    &["blake3", "data-encoding", "ed25519-dalek", "fastrand", "postcard", "semver", "serde", "thiserror"];
/// What oci may depend on: parsing, no IO, so that it builds fast and can be fuzzed by itself.
const OCI_DEPENDENCIES: &[&str] =
    &["oci-spec", "serde", "serde-saphyr", "serde_json", "thiserror", "waystation-proto"];
/// What topology may depend on: it is read by the simulator, which has no clock and no network.
const TOPOLOGY_DEPENDENCIES: &[&str] = &["serde", "thiserror", "toml"];

#[test]
fn every_rust_file_says_what_it_owns() {
    check("opens with //!", rust_files(), |file| {
        if file.text.starts_with("//!") { vec![] } else { vec!["the first line is not `//!`".into()] }
    });
}

#[test]
fn files_are_short() {
    let mut excused = Excused::new(LONG_FILES.iter().map(|(path, _)| (*path, "")));
    check("file length", rust_files(), |file| {
        let lines = file.before_tests().lines().count();
        if lines <= FILE_LINES_MAX || excused.take(&file.path, "") {
            return vec![];
        }
        vec![format!("{lines} lines before its tests, more than {FILE_LINES_MAX}: give a noun its own file")]
    });
    excused.assert_all_needed();
}

#[test]
fn functions_are_short() {
    let mut excused = Excused::new(LONG_FUNCTIONS.iter().map(|(path, name, _)| (*path, *name)));
    check("function length", rust_files(), |file| {
        functions(&file.code)
            .into_iter()
            .filter(|function| function.lines > FUNCTION_LINES_MAX)
            .filter(|function| !excused.take(&file.path, &function.name))
            .map(|f| format!("fn {} has {} lines, more than {FUNCTION_LINES_MAX}", f.name, f.lines))
            .collect()
    });
    excused.assert_all_needed();
}

#[test]
fn error_enums_are_small() {
    check("error enums", rust_files(), |file| {
        if file.path == ERROR_ENUM_HOME {
            return vec![];
        }
        enums(&file.code)
            .into_iter()
            .filter(|(name, _)| name.ends_with("Error") || name.ends_with("Failure"))
            .filter(|(_, variants)| *variants > ERROR_VARIANTS_MAX)
            .map(|(name, n)| format!("enum {name} has {n} variants, more than {ERROR_VARIANTS_MAX}"))
            .collect()
    });
}

#[test]
fn nothing_is_left_to_do() {
    const UNFINISHED: &[(&str, &str)] = &[
        ("todo!(", "write it"),
        ("unimplemented!(", "write it"),
        ("#[ignore", "a test that does not run is no test"),
        ("dbg!(", "use tracing"),
    ];
    check("unfinished code", rust_files(), |file| occurrences(&file.code, UNFINISHED));
}

#[test]
fn proto_only_decides() {
    const IMPURE: &[(&str, &str)] = &[
        ("async", "the driver waits, proto answers at once"),
        (".await", "the driver waits, proto answers at once"),
        ("std::", "proto is no_std: use core and alloc"),
        ("HashMap", "its order differs between processes; use BTreeMap"),
        ("HashSet", "its order differs between processes; use BTreeSet"),
    ];
    let proto = rust_files().into_iter().filter(|file| file.path.starts_with("proto/src/")).collect();
    check("proto is pure", proto, |file| occurrences(file.code_before_tests(), IMPURE));
}

#[test]
fn dependencies_point_one_way() {
    let pure =
        [("proto", PROTO_DEPENDENCIES), ("oci", OCI_DEPENDENCIES), ("topology", TOPOLOGY_DEPENDENCIES)];
    for (name, allowed) in pure {
        let found = dependencies(&format!("{name}/Cargo.toml"), "dependencies");
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).into()).collect();
        let strangers: Vec<_> = found.difference(&allowed).collect();
        assert!(strangers.is_empty(), "{name} may not depend on {strangers:?}; it does no IO");
        let unused: Vec<_> = allowed.difference(&found).collect();
        assert!(unused.is_empty(), "the list for {name} has what it does not depend on: {unused:?}");
    }
    for table in ["dependencies", "dev-dependencies"] {
        let sim = dependencies("sim/Cargo.toml", table);
        assert!(!sim.contains("waystation"), "sim may not depend on the node: it is the other driver");
    }
    let node = dependencies("node/Cargo.toml", "dependencies");
    assert!(!node.contains("waystation-topology"), "the node knows no network but the one that it is in");
}

/// The oldest compiler is not at hand everywhere; clippy checks our own code against it (incompatible_msrv),
/// this checks what the lock file brings.
#[test]
fn dependencies_build_with_the_oldest_compiler_promised() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let needs = |package: &serde_json::Value| -> (u32, u32) {
        let mut numbers =
            package["rust_version"].as_str().unwrap_or("0").split('.').map(|n| n.parse().unwrap());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    let packages = metadata["packages"].as_array().unwrap();
    let own = packages.iter().find(|package| package["name"] == "waystation").unwrap();
    let newer: Vec<_> = packages.iter().filter(|package| needs(package) > needs(own)).collect();
    let names: Vec<_> = newer.iter().map(|package| &package["id"]).collect();
    assert!(names.is_empty(), "need a newer Rust than rust-version says: {names:?}");
}

#[test]
fn every_module_file_is_compiled() {
    let files = rust_files();
    let mut orphans = vec![];
    for file in &files {
        let path = Path::new(&file.path);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if ["main", "lib", "mod", "tidy", "build"].contains(&stem) || file.path.contains("/bin/") {
            continue;
        }
        // A crate's own tests/, benches/ and examples/ are roots, too.
        if path.parent().is_some_and(|p| ["tests", "benches", "examples"].iter().any(|d| p.ends_with(d)))
            && !file.path.starts_with("tests/")
        {
            continue;
        }
        let declared = |other: &SourceFile| {
            let top = |p: &str| p.split('/').next().unwrap().to_owned();
            top(&other.path) == top(&file.path) && words(&other.code, &format!("mod {stem};"))
        };
        if !files.iter().any(declared) {
            orphans.push(file.path.clone());
        }
    }
    assert!(orphans.is_empty(), "no `mod` declares these files, so nothing compiles them: {orphans:?}");
}

#[test]
fn documents_name_what_exists() {
    let documents: Vec<_> = text_files().into_iter().filter(|f| f.path.ends_with(".md")).collect();
    assert!(documents.iter().any(|f| f.path == "ARCHITECTURE.md"), "ARCHITECTURE.md is missing");
    let mut problems = String::new();
    for document in &documents {
        let folder = root().join(&document.path).parent().unwrap().to_owned();
        for link in relative_links(&document.text) {
            if !folder.join(&link).exists() {
                let _ = writeln!(problems, "{}: links to {link}, which does not exist", document.path);
            }
        }
        // The history may name what is gone.
        if document.path.ends_with("CHANGELOG.md") {
            continue;
        }
        for path in named_paths(&document.text) {
            if !root().join(&path).exists() {
                let _ = writeln!(problems, "{}: names `{path}`, which does not exist", document.path);
            }
        }
    }
    assert!(problems.is_empty(), "documents that are out of date:\n{problems}");
}

#[test]
fn no_file_speaks_of_the_machine_it_was_written_on() {
    // In halves, so that this file does not name them.
    let machine = [
        ["/wo", "rk/"],
        ["/tm", "p/h/"],
        ["/ro", "ot/"],
        ["index.crat", "es.io"],
        ["static.crat", "es.io"],
        ["pyp", "i.org"],
        ["pythonho", "sted.org"],
        ["npm", "js.org"],
        ["proxy.gol", "ang.org"],
        ["deb.deb", "ian.org"],
    ]
    .map(|halves| halves.concat());
    let files = text_files().into_iter().filter(|f| f.path != "LICENSE").collect();
    check("names of this machine", files, |file| {
        machine.iter().filter(|name| file.text.contains(*name)).map(|name| format!("names {name}")).collect()
    });
}

#[test]
fn text_is_clean() {
    check("clean text", text_files(), |file| {
        let mut problems = vec![];
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            problems.push("does not end with a line end".into());
        }
        for (number, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                problems.push(format!("line {}: blanks at its end", number + 1));
            }
        }
        problems
    });
}

#[test]
fn configurations_parse() {
    let configs = text_files().into_iter().filter(|f| f.path.ends_with(".toml")).collect();
    check("TOML", configs, |file| match file.text.parse::<toml::Table>() {
        Ok(_) => vec![],
        Err(error) => vec![error.to_string()],
    });
}

#[test]
fn the_scanner_reads_rust() {
    let code = without_text(
        "fn a<'x>() { let s = \"fn b() {\"; // fn c() {\n let c = '{'; /* } */ }\nfn d();\nenum E { A(u8, u8), #[x] B { y: u8 }, C }\nconst R: &str = r#\"todo!( \" \"#;",
    );
    let names: Vec<_> = functions(&code).into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(names, [("a".to_owned(), 2)]);
    assert_eq!(enums(&code), [("E".to_owned(), 3)]);
    assert_eq!(occurrences(&code, &[("todo!(", "")]), Vec::<String>::new());
    assert_eq!(occurrences("an async move", &[("async", "")]).len(), 1);
    assert_eq!(occurrences("asynchronous nostd::x", &[("async", ""), ("std::", "")]), Vec::<String>::new());
    assert_eq!(named_paths("`node/src/{a,b}.rs` and `x/y` `proto`"), ["node/src/a.rs", "node/src/b.rs"]);
}

/// A text file of the repository; for Rust, `code` is its text with comments and literals blanked.
struct SourceFile {
    path: String,
    text: String,
    code: String,
    tests_at_line: usize,
}

impl SourceFile {
    fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") { without_text(&text) } else { String::new() };
        let tests_at_line = if path.ends_with("/tests.rs") { 0 } else { test_module_line(&text) };
        SourceFile { path, text, code, tests_at_line }
    }

    fn before_tests(&self) -> &str {
        first_lines(&self.text, self.tests_at_line)
    }

    fn code_before_tests(&self) -> &str {
        first_lines(&self.code, self.tests_at_line)
    }
}

/// Exceptions, each of which must be used.
struct Excused {
    all: BTreeSet<(String, String)>,
    used: BTreeSet<(String, String)>,
}

impl Excused {
    fn new<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Excused { all: all.map(|(a, b)| (a.into(), b.into())).collect(), used: BTreeSet::new() }
    }

    fn take(&mut self, path: &str, name: &str) -> bool {
        let key = (path.to_owned(), name.to_owned());
        let excused = self.all.contains(&key);
        if excused {
            self.used.insert(key);
        }
        excused
    }

    fn assert_all_needed(&self) {
        let spare: Vec<_> = self.all.difference(&self.used).collect();
        assert!(spare.is_empty(), "exceptions that are not needed any more: {spare:?}");
    }
}

struct Function {
    name: String,
    lines: usize,
}

fn check(what: &str, files: Vec<SourceFile>, mut problems_of: impl FnMut(&SourceFile) -> Vec<String>) {
    assert!(!files.is_empty(), "{what}: no file was looked at");
    let mut all = String::new();
    for file in &files {
        for problem in problems_of(file) {
            let _ = writeln!(all, "{}: {problem}", file.path);
        }
    }
    assert!(all.is_empty(), "{what}:\n{all}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files() -> Vec<SourceFile> {
    text_files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// Every UTF-8 file outside what git ignores, sorted by path; what fuzzing keeps is no text.
fn text_files() -> Vec<SourceFile> {
    const SKIPPED: &[&str] = &["target", ".git", ".venv", "__pycache__", "node_modules", "corpus"];
    let root = root();
    let (mut files, mut folders) = (vec![], vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !SKIPPED.contains(&&*name) {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push(SourceFile::new(relative, text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn dependencies(manifest: &str, table: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest.get(table).and_then(|t| t.as_table()).map(|t| t.keys().cloned().collect()).unwrap_or_default()
}

fn first_lines(text: &str, lines: usize) -> &str {
    let end = text.split_inclusive('\n').take(lines).map(str::len).sum();
    &text[..end]
}

/// Number of lines before the `#[cfg(test)]` that belongs to a module.
fn test_module_line(text: &str) -> usize {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines
        .iter()
        .enumerate()
        .position(|(at, line)| {
            let next = lines[at + 1..].iter().find(|line| !line.starts_with("#["));
            *line == "#[cfg(test)]" && next.is_some_and(|next| next.starts_with("mod "))
        })
        .unwrap_or(lines.len())
}

/// The text with comments, strings and character literals blanked; line ends stay where they are.
fn without_text(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_end(&chars, at) {
            Some(end) => end.min(chars.len()),
            None => {
                code.push(chars[at]);
                at += 1;
                continue;
            }
        };
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; none if there begins no such thing.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let find = |from: usize, end: &[char]| {
        (from..rest.len()).find(|i| rest[*i..].starts_with(end)).map_or(rest.len(), |i| i + end.len())
    };
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => find(2, &['*', '/']),
        ['r', '"' | '#', ..] if !in_word => raw_string_length(rest, 1)?,
        ['b', 'r', '"' | '#', ..] if !in_word => raw_string_length(rest, 2)?,
        ['"', ..] => {
            let mut i = 1;
            while i < rest.len() && rest[i] != '"' {
                i += if rest[i] == '\\' { 2 } else { 1 };
            }
            i + 1
        }
        ['\'', '\\', ..] => find(3, &['\'']),
        ['\'', _, '\'', ..] => 3,
        _ => return None,
    };
    Some(at + length)
}

fn raw_string_length(rest: &[char], prefix: usize) -> Option<usize> {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let start = prefix + hashes;
    if rest.get(start) != Some(&'"') {
        return None;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    (start + 1..rest.len()).find(|i| rest[*i..].starts_with(&end)).map(|i| i + end.len())
}

/// Functions that have a body.
fn functions(code: &str) -> Vec<Function> {
    let mut found = vec![];
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = body_start(rest) else { continue };
        if let (false, Some(length)) = (name.is_empty(), block_length(&rest[open..])) {
            found.push(Function { name, lines: rest[..open + length].lines().count() });
        }
    }
    found
}

/// Where a function's body opens, or nothing where a `;` comes first.
fn body_start(signature: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in signature.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// Length of the block whose opening brace comes first.
fn block_length(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in code.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Enums and their numbers of variants.
fn enums(code: &str) -> Vec<(String, usize)> {
    let mut found = vec![];
    for (at, _) in code.match_indices("enum ") {
        let rest = &code[at + 5..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = rest.find('{') else { continue };
        let Some(length) = block_length(&rest[open..]) else { continue };
        let (mut depth, mut expected, mut variants) = (0_i32, false, 0);
        for c in rest[open..open + length].chars() {
            match c {
                '{' | '(' | '[' | '<' => depth += 1,
                '}' | ')' | ']' | '>' => depth -= 1,
                c if depth == 1 && expected && c.is_alphabetic() => {
                    variants += 1;
                    expected = false;
                    continue;
                }
                _ => {}
            }
            if depth == 1 && (c == ',' || c == '{') {
                expected = true;
            }
        }
        found.push((name, variants));
    }
    found
}

/// Lines that have one of the words, with what to do instead.
fn occurrences(code: &str, banned: &[(&str, &str)]) -> Vec<String> {
    let mut found = vec![];
    for (number, line) in code.lines().enumerate() {
        for (word, instead) in banned {
            if words(line, word) {
                found.push(format!("line {}: {word}: {instead}", number + 1));
            }
        }
    }
    found
}

/// Whether the word stands in the code by itself, not inside a longer one.
fn words(code: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let open_end = !part(word.chars().next_back());
    let open_start = !part(word.chars().next());
    code.match_indices(word).any(|(at, _)| {
        (open_start || !part(code[..at].chars().next_back()))
            && (open_end || !part(code[at + word.len()..].chars().next()))
    })
}

/// Targets of Markdown links into the repository, without their fragments.
fn relative_links(markdown: &str) -> Vec<String> {
    markdown
        .match_indices("](")
        .filter_map(|(at, _)| markdown[at + 2..].split_once(')').map(|(link, _)| link))
        .map(|link| link.split('#').next().unwrap().to_owned())
        .filter(|link| !link.is_empty() && !link.contains(':') && !link.contains(char::is_whitespace))
        .collect()
}

/// Paths in backticks that begin with a folder of this repository, `{a,b}` written out.
fn named_paths(markdown: &str) -> Vec<String> {
    const FOLDERS: &[&str] =
        &["proto/", "oci/", "node/", "sim/", "topology/", "configs/", "tests/", "fuzz/", ".ci/"];
    let allowed = |c: char| c.is_alphanumeric() || "_-./{},".contains(c);
    let quoted = markdown.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted
        .filter(|path| FOLDERS.iter().any(|folder| path.starts_with(folder)) && path.chars().all(allowed))
        .flat_map(|path| match (path.split_once('{'), path.split_once('}')) {
            (Some((before, _)), Some((inside, after))) => inside[before.len() + 1..]
                .split(',')
                .map(|middle| format!("{before}{middle}{after}"))
                .collect(),
            _ => vec![path.to_owned()],
        })
        .collect()
}
