//! The GPU that tests run on: a software one (lavapipe) does as well as a real one.

use std::sync::{Arc, OnceLock};

use runtime::gpu::{Adapter, Device, DeviceOptions, Features, adapters};

/// `None`, said aloud, where there is no adapter, unless LAPIDARY_REQUIRE_GPU asks for a failure.
pub(crate) fn adapter() -> Option<Adapter> {
    let found = adapters().into_iter().next();
    if found.is_none() {
        assert!(std::env::var_os("LAPIDARY_REQUIRE_GPU").is_none(), "no GPU adapter");
        eprintln!("SKIPPED: no GPU adapter; nothing of this test ran");
    }
    found
}

/// A device that multiplies in f32, so that what it says can be compared closely; within subgroups
/// where it has them.
pub(crate) fn open_device(options: &DeviceOptions) -> Option<Arc<Device>> {
    let adapter = adapter()?;
    let subgroup = adapter.offers().subgroups.map(|(least, _)| least);
    let features = Some(Features { subgroup, ..Features::PLAIN });
    Some(adapter.open(&DeviceOptions { features, ..options.clone() }).unwrap())
}

/// The device that the tests of a binary share.
pub(crate) fn device() -> Option<Arc<Device>> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    DEVICE.get_or_init(|| open_device(&DeviceOptions::default())).clone()
}
