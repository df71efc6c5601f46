//! lingerd
use linger_daemon::probe::*;
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("linger_daemon=debug")
        .init();
    let t = std::time::Instant::now();
    let loader = Loader::new()?;
    eprintln!("loader {:?}", t.elapsed());
    for &plan in linger_ebpf::Plan::ALL {
        for hook in hooks(plan, &loader.kernel) {
            let t = std::time::Instant::now();
            eprintln!(
                "{} {}: {:?} {:?}",
                plan.name(),
                hook.point,
                loader.try_hook(hook),
                t.elapsed()
            );
        }
    }
    Ok(())
}
