//! The program behind each pod: the small static one that a release embeds, or this one under another name.
use runtime::ShimProgram;

#[cfg(rk_shim_image)]
pub fn program() -> ShimProgram {
    ShimProgram::Image(include_bytes!(env!("RK_SHIM_IMAGE")))
}

#[cfg(not(rk_shim_image))]
pub fn program() -> ShimProgram {
    ShimProgram::SelfExe
}
