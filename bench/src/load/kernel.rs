//! What the kernel counts beside a load: datagrams dropped at the server's sockets, time taken by
//! the hypervisor; and what machine this is.

use std::fs;

use crate::report::model::Machine;

use super::LoadOptions;

/// Counters at one time.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    server_drops: Option<u64>,
    /// For each core of interest: stolen and all ticks.
    ticks: Vec<(u64, u64)>,
}

impl Kernel {
    /// Reads them now.
    pub fn read(options: &LoadOptions) -> Kernel {
        let server_drops = options.server_pid.and_then(|pid| {
            let drops = ["udp", "udp6"].iter().filter_map(|table| {
                let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok()?;
                Some(drops_of_port(&text, options.server.port()))
            });
            drops.reduce(|a, b| a + b)
        });
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let cores = options.cores.iter().chain(&options.server_core).copied();
        let ticks = match cores.map(|core| times(&text, &format!("cpu{core}"))).collect() {
            none if Vec::is_empty(&none) => vec![times(&text, "cpu")],
            each => each,
        };
        Kernel { server_drops, ticks }
    }

    /// Datagrams dropped at the server's sockets since.
    pub fn server_drops_since(&self, before: &Kernel) -> Option<u64> {
        Some(self.server_drops?.saturating_sub(before.server_drops?))
    }

    /// The share of a core's time that the hypervisor has taken since, of the core it took most of.
    pub fn stolen_since(&self, before: &Kernel) -> f64 {
        let pairs = self.ticks.iter().zip(&before.ticks);
        let shares = pairs.map(|(now, then)| {
            now.0.saturating_sub(then.0) as f64 / now.1.saturating_sub(then.1).max(1) as f64
        });
        shares.fold(0.0, f64::max)
    }
}

/// The drops of all sockets bound to `port`, in the text of `/proc/net/udp`.
fn drops_of_port(text: &str, port: u16) -> u64 {
    let lines = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let drops = lines.filter_map(|fields| {
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let bound = u16::from_str_radix(local, 16).ok()? == port;
        if bound { fields.last()?.parse::<u64>().ok() } else { None }
    });
    drops.sum()
}

/// Stolen and all ticks of one core in `/proc/stat`, or of all.
fn times(text: &str, core: &str) -> (u64, u64) {
    let line = text.lines().find(|line| line.split(' ').next() == Some(core)).unwrap_or("");
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().take(8).sum())
}

/// This machine.
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let memory_kib: u64 = memory.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
        cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
        cores: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        memory_mib: memory_kib / 1024,
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_port() {
        let line = |port: &str, drops: u32| {
            format!("1: 0100007F:{port} 00000000:0000 07 0:0 00:0 00000000 0 0 1 2 0 {drops}\n")
        };
        let head = "  sl  local_address rem_address   st tx_queue ... ref pointer drops\n";
        let text = format!("{head}{}{}{}", line("14B4", 17), line("14B4", 3), line("0035", 100));
        assert_eq!(drops_of_port(&text, 5300), 20);
        assert_eq!(drops_of_port("", 5300), 0);
    }

    #[test]
    fn stolen_time_is_the_eighth_number() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 9\ncpu1 1 1 1 1 1 1 1 1 0 0\ncpu10 0 0 0 0 0 0 0 5 0 0";
        assert_eq!(times(text, "cpu"), (8, 36));
        assert_eq!(times(text, "cpu1"), (1, 8));
        assert_eq!(times(text, "cpu10"), (5, 5));
        assert_eq!(times("", "cpu"), (0, 0));
    }

    #[test]
    fn this_machine_has_a_kernel_and_memory() {
        let machine = machine();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty());
    }
}
