//! Packs relocations, and takes the shim in where the release build made one (`cargo xtask build` names it in RK_SHIM_IMAGE).
fn main() {
    // A static binary that may be loaded anywhere relocates itself at each start: as a bitmap, the list is a hundredth as long.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo:rerun-if-env-changed=RK_SHIM_IMAGE");
    println!("cargo:rustc-check-cfg=cfg(rk_shim_image)");
    if let Ok(path) = std::env::var("RK_SHIM_IMAGE") {
        println!("cargo:rerun-if-changed={path}");
        println!("cargo:rustc-cfg=rk_shim_image");
        println!("cargo:rustc-env=RK_SHIM_IMAGE={path}");
    }
}
