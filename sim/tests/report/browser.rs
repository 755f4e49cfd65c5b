//! The report in a real browser: headless Chromium, without a network, in a wide and a narrow window, light and
//! dark. A script that only the tests put into a copy of the page tells what the browser made of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use waystation_sim::report;

use super::{Sample, write};

/// What lets the page load nothing and run no script, and what the tests need instead.
const POLICY: &str = "default-src 'none'; style-src";
const POLICY_OF_TESTS: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src";
/// Seconds for one start of the browser.
const PATIENCE: &str = "120";

/// Gives the page its width, which for a window is never less than 500, and keeps what the probe tells.
const AROUND: &str = "<!DOCTYPE html><html><head><meta name=\"color-scheme\" content=\"light dark\"></head><body>\
    <pre id=\"seen\"></pre><script>addEventListener('message', e => { seen.textContent = e.data; });</script>\
    <iframe src=\"probed.html\" style=\"width: WIDTHpx; height: 900px; border: 0\"></iframe></body></html>";

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
struct View {
    width: u32,
    dark: bool,
}

const WIDE: View = View { width: 1280, dark: false };
const VIEWS: [View; 4] = [
    WIDE,
    View { width: 1280, dark: true },
    View { width: 390, dark: false },
    View { width: 390, dark: true },
];

#[test]
fn a_browser_shows_the_whole_report() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &Sample::new("edge rollout").measurements());
    let page = report::write(folder.path()).unwrap();
    for view in VIEWS {
        let seen = look(folder.path(), &fs::read_to_string(&page).unwrap(), view);
        let number = |value: &Value| value.as_f64().unwrap();
        assert_eq!(seen["width"], view.width, "the window");
        assert_eq!(seen["dark"], view.dark, "the colour scheme");
        assert_eq!(seen["ground"] == "rgb(255, 255, 255)", !view.dark, "the ground is {}", seen["ground"]);
        assert!(
            number(&seen["content"]) <= f64::from(view.width),
            "{view:?}: wider than the window: {}",
            seen["content"]
        );
        for nothing in ["requests", "faint"] {
            assert_eq!(seen[nothing], Value::Array(vec![]), "{view:?}: {nothing}");
        }
        for zero in ["headless", "broken"] {
            assert_eq!(seen[zero], 0, "{view:?}: {zero}");
        }
        let plots = seen["plots"].as_array().unwrap();
        // Four of each: completion, outage, lines, matrix, spread; two of growth; uplink, staleness, control.
        assert_eq!(plots.len(), 5 * 4 + 2 + 3);
        for plot in plots {
            let name = &plot["name"];
            assert_eq!(plot["described"], true, "{name}");
            for size in ["width", "height", "drawn"] {
                assert!(number(&plot[size]) >= 80.0, "{view:?}, {name}: {size} is {}", plot[size]);
            }
            assert!(number(&plot["small"]) >= 9.0, "{view:?}, {name}: texts {} high", plot["small"]);
            for nothing in ["outside", "clashes"] {
                assert_eq!(plot[nothing], Value::Array(vec![]), "{view:?}, {name}: {nothing}");
            }
        }
        picture(&page, view, seen["height"].as_u64().unwrap());
    }
}

/// Without this, a probe that sees nothing would pass.
#[test]
fn the_probe_sees_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let page = "<!DOCTYPE html><html><head><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
        style-src 'unsafe-inline'\"></head><body style=\"background: #fff\"><p style=\"color: #ccc\">faint</p>\
        <table></table><nav><a href=\"#nowhere\">a</a></nav>\
        <svg role=\"img\" viewBox=\"0 0 100 100\" width=\"100\"><title>bad</title><desc></desc>\
        <text x=\"90\" y=\"50\">too far to the right</text><text x=\"92\" y=\"52\">clash</text></svg></body></html>";
    let seen = look(folder.path(), page, WIDE);
    assert_eq!(seen["faint"], serde_json::json!(["P rgb(204, 204, 204)"]));
    assert_eq!((&seen["headless"], &seen["broken"]), (&1.into(), &1.into()));
    let plot = &seen["plots"][0];
    assert_eq!(plot["outside"], serde_json::json!(["too far to the right", "clash"]));
    assert_eq!(plot["clashes"], serde_json::json!(["too far to the right | clash"]));

    let loading = page.replace("</body>", "<img src=\"http://example.invalid/a.png\"></body>");
    let file = folder.path().join("loading.html");
    fs::write(&file, loading).unwrap();
    let output = browser(WIDE, &["--dump-dom"], &file);
    assert!(!complaints(&output).is_empty(), "the browser said nothing of a picture that it may not load");
}

/// What the probe sees in a copy of a page.
fn look(folder: &Path, page: &str, view: View) -> Value {
    let file = folder.join("probed.html");
    assert!(page.contains(POLICY), "the page lets more be loaded than it should");
    let script = format!("<script>{}</script></body>", include_str!("probe.js"));
    fs::write(&file, page.replace(POLICY, POLICY_OF_TESTS).replace("</body>", &script)).unwrap();
    let around = folder.join("around.html");
    fs::write(&around, AROUND.replace("WIDTH", &view.width.to_string())).unwrap();
    let output = browser(view, &["--dump-dom", "--virtual-time-budget=20000"], &around);
    assert_eq!(complaints(&output), Vec::<String>::new(), "{view:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let seen = text.split("<pre id=\"seen\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let Some(seen) = seen.filter(|seen| !seen.is_empty()) else {
        panic!("{view:?}: the probe did not run: {}", String::from_utf8_lossy(&output.stderr))
    };
    let seen = seen.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&seen).unwrap()
}

/// A picture of the page, unchanged, for people who want to see it: it stays in the folder of build products.
fn picture(page: &Path, view: View, height: u64) {
    let name = format!("report-{}-{}.png", view.width, if view.dark { "dark" } else { "light" });
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_file(&picture);
    let height = height.min(16_000);
    let output = browser(
        view,
        &[&format!("--screenshot={}", picture.display()), &format!("--window-size={},{height}", view.width)],
        page,
    );
    assert_eq!(complaints(&output), Vec::<String>::new(), "{view:?}");
    let bytes = fs::read(&picture).unwrap_or_default();
    assert!(
        bytes.starts_with(b"\x89PNG") && bytes.len() > 50_000,
        "{view:?}: no picture of {} bytes",
        bytes.len()
    );
}

/// What the page's console says.
fn complaints(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
}

/// Opens a page; with a profile of its own, which goes again.
fn browser(view: View, options: &[&str], page: &Path) -> Output {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .arg(PATIENCE)
        .arg(chromium())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .args(["--disable-background-networking", "--no-first-run", "--disable-component-update"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={},900", view.width))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!view.dark)))
        .args(options)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the browser ended with {}: {said}", output.status);
    output
}

/// The first that runs: where snaps are, `chromium-browser` may be a script that only tells to install one.
fn chromium() -> PathBuf {
    let built = std::env::var_os("WAYSTATION_TEST_TOOLS").map(|tools| PathBuf::from(tools).join("chromium"));
    let names =
        ["chromium", "chromium-headless-shell", "chromium-browser", "google-chrome"].map(PathBuf::from);
    let runs = |name: &PathBuf| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let found = built.into_iter().chain(names).find(runs);
    found.expect("no Chromium runs here: `tests/run tools` installs it")
}
