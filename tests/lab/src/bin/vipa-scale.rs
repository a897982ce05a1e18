//! Many VIPAs on real processes; see `vipa_lab::scale`. The numbers of VIPAs are the arguments.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use vipa_lab::{endurance::append_row, scale::run};

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let number = |text: String| text.parse().with_context(|| format!("{text:?} is no number of VIPAs"));
    let counts: Vec<u32> = std::env::args().skip(1).map(number).collect::<Result<_>>()?;
    ensure!(!counts.is_empty(), "vipa-scale takes numbers of VIPAs, such as 1 200 1000 4000");
    let mut late = 0;
    for count in counts {
        for measured in run(&[count])? {
            println!("{measured}");
            append_row("scale", &measured)?;
            late += usize::from(measured.is_status_late());
        }
    }
    ensure!(late == 0, "`vipactl status` was late {late} times");
    Ok(())
}
