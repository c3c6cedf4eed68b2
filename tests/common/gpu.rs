//! The GPU that tests run on: a software one (lavapipe) does as well as a real one.

use std::sync::{Arc, OnceLock};

use runtime::gpu::{Device, DeviceOptions, adapters};

/// `None`, said aloud, where there is no adapter, unless LAPIDARY_REQUIRE_GPU asks for a failure.
pub(crate) fn open_device(options: &DeviceOptions) -> Option<Arc<Device>> {
    let found = adapters();
    let Some(adapter) = found.first() else {
        assert!(std::env::var_os("LAPIDARY_REQUIRE_GPU").is_none(), "no GPU adapter");
        eprintln!("SKIPPED: no GPU adapter; nothing of this test ran");
        return None;
    };
    Some(adapter.open(options).unwrap())
}

/// The device that the tests of a binary share.
pub(crate) fn device() -> Option<Arc<Device>> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    DEVICE.get_or_init(|| open_device(&DeviceOptions::default())).clone()
}
