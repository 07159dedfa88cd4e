//! A headless browser: opens pages at two widths, says what is wrong with them, prints them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ring53_bench::report::page::escape;
use tempfile::TempDir;

/// What a page is looked at with.
const MEASURE: &str = include_str!("measure.js");
/// A browser that takes longer hangs.
const SECONDS_MAX: u64 = 120;
/// One browser at a time: they are large.
static TURN: Mutex<()> = Mutex::new(());

/// Light or dark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scheme {
    /// Dark letters.
    Light,
    /// Light letters.
    Dark,
}

/// A page in a directory of its own.
pub struct Page {
    directory: TempDir,
}

impl Page {
    /// With this HTML.
    pub fn new(html: &str) -> Page {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("page.html"), html).unwrap();
        Page { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Messages of the console when the page is opened as a file.
    pub fn console(&self) -> Vec<String> {
        let (_, log) = self.browse("page.html", &["--dump-dom"]);
        log.lines().filter(|line| line.contains("CONSOLE")).map(String::from).collect()
    }

    /// What is wrong with the page at 360 px and at 1280 px, one line each.
    pub fn faults(&self, scheme: Scheme) -> Vec<String> {
        let html = fs::read_to_string(self.path().join("page.html")).unwrap();
        // A window cannot be as narrow as a phone, a frame can.
        let frame = |width: u32| {
            let page = escape(&html);
            format!(
                "<iframe style=\"width:{width}px;height:900px;border:0\" srcdoc=\"{page}\"></iframe>"
            )
        };
        let harness = format!(
            "<!doctype html><body style=\"margin:0\">{}{}<pre id=\"faults\"></pre>\
             <script>{MEASURE}</script>",
            frame(360),
            frame(1280)
        );
        fs::write(self.path().join("harness.html"), harness).unwrap();
        let dark = match scheme {
            Scheme::Light => "--blink-settings=preferredColorScheme=1",
            Scheme::Dark => "--blink-settings=preferredColorScheme=0",
        };
        let arguments = ["--dump-dom", "--virtual-time-budget=5000", dark];
        let (dom, log) = self.browse("harness.html", &arguments);
        let found =
            dom.split("<pre id=\"faults\">").nth(1).and_then(|rest| rest.split("</pre>").next());
        let found = found.unwrap_or_default();
        let expected = format!("looked at 2 frames, {}", format!("{scheme:?}").to_lowercase());
        assert!(found.starts_with(&expected), "{expected:?} is not in {found:?}\n{log}");
        found.lines().skip(1).filter(|line| !line.is_empty()).map(String::from).collect()
    }

    /// The page as PDF.
    pub fn print(&self) -> Vec<u8> {
        let pdf = self.path().join("page.pdf");
        let to = format!("--print-to-pdf={}", pdf.display());
        let (_, log) = self.browse("page.html", &[&to, "--no-pdf-header-footer"]);
        fs::read(&pdf).unwrap_or_else(|error| panic!("no PDF: {error}\n{log}"))
    }

    /// Runs the browser; returns stdout and stderr.
    fn browse(&self, file: &str, arguments: &[&str]) -> (String, String) {
        let _turn = TURN.lock().unwrap_or_else(|broken| broken.into_inner());
        let profile = tempfile::tempdir().unwrap();
        let (out, log) = (self.path().join("stdout"), self.path().join("stderr"));
        let mut browser = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            .args(["--enable-logging=stderr", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(arguments)
            .arg(format!("file://{}", self.path().join(file).display()))
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect(
                "chromium is needed: scripts/test installs it (Debian: apt-get install chromium)",
            );
        let deadline = Instant::now() + Duration::from_secs(SECONDS_MAX);
        while browser.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                browser.kill().unwrap();
                browser.wait().unwrap();
                panic!("chromium took more than {SECONDS_MAX} s");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        (read(&out), read(&log))
    }
}
