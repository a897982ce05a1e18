//! What is really there: packages and their arrows by `cargo metadata`, sources by reading them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{Page, Source};

/// The repository as the rules see it.
#[derive(Clone, Debug, Default)]
pub struct House {
    pub packages: Vec<Package>,
    pub sources: Vec<Source>,
    /// ARCHITECTURE.md.
    pub page: String,
    /// The pages at the root and those that users read.
    pub pages: Vec<Page>,
    /// Every file and folder of the repository, from its root.
    pub files: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub struct Package {
    /// Its name without `vipa-`.
    pub room: String,
    /// From the root of the repository.
    pub folder: String,
    pub dependencies: Vec<Dependency>,
    pub takes_workspace_lints: bool,
}

#[derive(Clone, Debug)]
pub struct Dependency {
    pub name: String,
    /// A dev-dependency. What a build script uses counts as used.
    pub for_tests: bool,
}

impl House {
    /// Reads the repository that this crate stands in.
    ///
    /// # Panics
    /// When cargo or a file does not answer: then there is no house to judge.
    #[must_use]
    pub fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository's root");
        let packages = packages(&root);
        let mut files = Vec::new();
        for package in &packages {
            rust_files(&root.join(&package.folder), &mut files);
        }
        files.sort();
        let sources = files.iter().map(|file| read(&root, file)).collect();
        let page = read_text(&root.join("ARCHITECTURE.md"));
        let mut all = BTreeSet::new();
        everything(&root, &root, &mut all);
        let is_page = |name: &&String| {
            let folder = name.split_once('/').map_or("", |(folder, _)| folder);
            name.ends_with(".md") && matches!(folder, "" | "docs" | "dpdk-config" | "docker" | "perf")
        };
        let read_page = |name: &String| Page { name: name.clone(), text: read_text(&root.join(name)) };
        let pages = all.iter().filter(is_page).map(read_page).collect();
        Self { packages, sources, page, pages, files: all }
    }
}

/// All files and folders, except hidden ones, build directories and the fuzzers' inputs.
fn everything(root: &Path, folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a folder can be listed").path();
        let name = below(root, &path);
        if name.starts_with('.') || name.starts_with("target") || name == "fuzz/corpus" || name == "fuzz/artifacts" {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            everything(root, &path, all);
        }
        all.insert(name);
    }
}

fn read_text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn packages(root: &Path) -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--offline", "--no-deps"];
    let output = Command::new(cargo).args(arguments).current_dir(root).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    packages.iter().map(|package| read_package(root, package)).collect()
}

fn read_package(root: &Path, package: &Value) -> Package {
    let name = package["name"].as_str().expect("a package has a name");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a package has a manifest"));
    let text = fs::read_to_string(manifest).expect("the manifest is there");
    let dependencies = package["dependencies"].as_array().into_iter().flatten().map(|dependency| Dependency {
        name: dependency["name"].as_str().expect("a dependency has a name").to_owned(),
        for_tests: dependency["kind"] == "dev",
    });
    Package {
        room: name.strip_prefix("vipa-").unwrap_or(name).to_owned(),
        folder: below(root, manifest.parent().expect("a manifest is in a folder")),
        dependencies: dependencies.collect(),
        takes_workspace_lints: text
            .split_once("[lints]")
            .is_some_and(|(_, rest)| rest.trim_start().starts_with("workspace = true")),
    }
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    Source::new(&below(root, file), &read_text(file))
}

fn below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}
