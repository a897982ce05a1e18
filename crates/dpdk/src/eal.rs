//! DPDK's environment: started once in a process, ended when its last user is gone.

use std::ffi::{CString, c_char};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use vipa_dpdk_sys as sys;

use crate::error::{last_reason, reason};
use crate::{Device, EalMemory, Error, log};

/// How DPDK is started.
#[derive(Clone, Debug)]
pub struct EalOptions {
    pub memory: EalMemory,
    /// Keeps the files of several DPDK processes on one machine apart.
    pub file_prefix: String,
    /// The devices that are going to be opened. DPDK looks at no other PCI device, and at none when none is listed.
    pub devices: Vec<Device>,
    /// Further EAL options, as they are.
    pub extra: Vec<String>,
}

/// DPDK, started. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Eal {
    _running: Arc<Running>,
}

#[derive(Debug)]
struct Running;

static STARTED: Mutex<bool> = Mutex::new(false);

impl Eal {
    /// Starts DPDK. The calling thread keeps the cores it may run on.
    pub fn init(options: &EalOptions) -> Result<Self, Error> {
        let arguments = options.arguments()?;
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if *started {
            return Err(Error::StartedBefore);
        }
        // DPDK cannot be started again, whether it fails now or ends later.
        *started = true;
        log::capture().map_err(|error| Error::Start { reason: reason(error), log: String::new() })?;
        log::explain(|| start(&arguments), |reason, log| options.explain(reason, log))?;
        Ok(Self { _running: Arc::new(Running) })
    }

    /// Makes the calling thread one of DPDK's until the value is dropped: it gets caches of its own in every pool.
    /// Threads that never join work as well, only slower.
    pub fn register_thread(&self) -> Result<RegisteredThread, Error> {
        // SAFETY: DPDK has been started, and stays so while `self` lives.
        match unsafe { sys::rte_thread_register() } {
            0 => Ok(RegisteredThread { _eal: self.clone(), _of_this_thread: PhantomData }),
            _ => Err(Error::Thread { reason: last_reason() }),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: DPDK has been started, and everything that uses it keeps an `Eal`: nothing is left.
        let result = unsafe { sys::rte_eal_cleanup() };
        debug_assert_eq!(result, 0, "rte_eal_cleanup");
    }
}

/// A thread that is one of DPDK's.
#[derive(Debug)]
pub struct RegisteredThread {
    _eal: Eal,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        // SAFETY: this is the thread that registered (the value is not Send), and DPDK still runs.
        unsafe { sys::rte_thread_unregister() }
    }
}

impl EalOptions {
    /// Ordinary settings for these devices.
    #[must_use]
    pub fn new(file_prefix: &str, memory: EalMemory, devices: &[Device]) -> Self {
        Self { memory, file_prefix: file_prefix.to_owned(), devices: devices.to_vec(), extra: Vec::new() }
    }

    fn arguments(&self) -> Result<Vec<CString>, Error> {
        let memory = self.memory.decide()?;
        let mut arguments = vec!["vipa".to_owned(), "--no-telemetry".to_owned()];
        arguments.push(format!("--file-prefix={}", self.file_prefix));
        if let Some(cores) = allowed_cores() {
            // One lcore that may run on all of this thread's cores: DPDK would pin the thread to the first otherwise.
            arguments.push(format!("--lcores=0@({cores})"));
        }
        arguments.extend(memory.options());
        let shares_memory = self.devices.iter().any(Device::needs_single_file_segments);
        match memory {
            _ if shares_memory => arguments.push("--single-file-segments".to_owned()),
            // A process that is killed leaves no hugepages behind.
            EalMemory::Auto { .. } | EalMemory::Hugepages { .. } => arguments.push("--huge-unlink=always".to_owned()),
            EalMemory::NoHuge { .. } => (),
        }
        let pci: Vec<String> = self.devices.iter().filter(|device| device.is_pci()).map(Device::to_string).collect();
        match pci.as_slice() {
            [] => arguments.push("--no-pci".to_owned()),
            some => some.iter().for_each(|device| arguments.push(format!("--allow={device}"))),
        }
        arguments.extend_from_slice(&self.extra);
        let terminated = |option: String| CString::new(option.clone()).map_err(|_| Error::Option { option });
        arguments.into_iter().map(terminated).collect()
    }

    fn explain(&self, reason: String, log: String) -> Error {
        if log.contains("Is another primary process running") {
            return Error::PrefixTaken { prefix: self.file_prefix.clone() };
        }
        Error::Start { reason, log }
    }
}

fn start(arguments: &[CString]) -> Result<(), String> {
    // DPDK permutes the array and keeps pointers to the texts: both stay for the life of the process.
    let arguments: Vec<*mut c_char> = arguments.iter().map(|text| text.clone().into_raw()).collect();
    let arguments = Vec::leak(arguments);
    let count = i32::try_from(arguments.len()).map_err(|error| error.to_string())?;
    // SAFETY: `arguments` are `count` pointers to terminated texts that live for ever; called once (STARTED).
    match unsafe { sys::rte_eal_init(count, arguments.as_mut_ptr()) } {
        0.. => Ok(()),
        _ => Err(last_reason()),
    }
}

/// The cores this thread may run on, as a list such as `0-3,8`.
fn allowed_cores() -> Option<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(list.trim().to_owned())
}
