//! The memory of the DPDK environment (EAL): hugepages or ordinary pages.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

const PAGES: &str = "/sys/kernel/mm/hugepages";

/// Which memory the EAL takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EalMemory {
    /// Hugepages when as many are free and a hugetlbfs is mounted, else ordinary pages.
    Auto { megabytes: u32 },
    /// Hugepages or an error.
    Hugepages { megabytes: u32 },
    /// Ordinary pages: fine for virtual ports, slower, and out of reach of most real NICs.
    NoHuge { megabytes: u32 },
}

impl EalMemory {
    /// What it comes to on this machine: `Hugepages` or `NoHuge`.
    pub(crate) fn decide(self) -> Result<Self, Error> {
        let machine = Machine::read(Path::new(PAGES), Path::new("/proc/mounts"));
        self.decide_on(&machine)
    }

    /// Hugepages of this machine that nobody uses.
    #[must_use]
    pub fn hugepages_free_mb() -> u64 {
        free_mb(Path::new(PAGES))
    }

    fn decide_on(self, machine: &Machine) -> Result<Self, Error> {
        match self {
            Self::NoHuge { .. } => Ok(self),
            Self::Hugepages { megabytes } => machine.offer(megabytes).map(|()| self),
            Self::Auto { megabytes } => Ok(match machine.offer(megabytes) {
                Ok(()) => Self::Hugepages { megabytes },
                Err(_) => Self::NoHuge { megabytes },
            }),
        }
    }

    pub(crate) fn options(self) -> Vec<String> {
        match self {
            Self::NoHuge { megabytes } => vec!["--no-huge".into(), format!("-m{megabytes}")],
            Self::Auto { megabytes } | Self::Hugepages { megabytes } => vec![format!("-m{megabytes}")],
        }
    }
}

/// The hugepages of a machine.
struct Machine {
    free_mb: u64,
    mounted: bool,
}

impl Machine {
    fn read(pages: &Path, mounts: &Path) -> Self {
        let mounts = fs::read_to_string(mounts).unwrap_or_default();
        let mounted = mounts.lines().filter_map(mount_of_hugepages).any(|folder| writable(&folder));
        Self { free_mb: free_mb(pages), mounted }
    }

    fn offer(&self, megabytes: u32) -> Result<(), Error> {
        if self.free_mb < u64::from(megabytes) {
            return Err(Error::NoHugepages { wanted_mb: megabytes, free_mb: self.free_mb });
        }
        if self.mounted { Ok(()) } else { Err(Error::HugepagesNotMounted) }
    }
}

fn free_mb(pages: &Path) -> u64 {
    let sizes = fs::read_dir(pages).into_iter().flatten().flatten();
    sizes.filter_map(|size| free_kb(&size.path())).sum::<u64>() / 1024
}

/// Of a folder such as `hugepages-2048kB`.
fn free_kb(folder: &Path) -> Option<u64> {
    let size = folder.file_name()?.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
    let free = fs::read_to_string(folder.join("free_hugepages")).ok()?;
    Some(size.parse::<u64>().ok()? * free.trim().parse::<u64>().ok()?)
}

/// The folder of a line of /proc/mounts when it is a hugetlbfs.
fn mount_of_hugepages(line: &str) -> Option<PathBuf> {
    let mut words = line.split(' ');
    let folder = words.nth(1)?;
    (words.next()? == "hugetlbfs").then(|| folder.into())
}

fn writable(folder: &Path) -> bool {
    let probe = folder.join(format!("vipa-probe-{}", std::process::id()));
    let made = fs::File::create(&probe).is_ok();
    // It was only made to be seen; a folder that refuses it is one that cannot be written.
    made && fs::remove_file(&probe).is_ok()
}

#[cfg(test)]
mod tests;
