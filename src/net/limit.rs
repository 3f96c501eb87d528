//! Limits of the process that a server raises for itself.
#![allow(unsafe_code, reason = "getrlimit and setrlimit")]

use std::io;

/// Raises the number of descriptors the process may have open to the hard limit and returns it.
///
/// The soft limit is 1024 nearly everywhere, for the sake of programs that use `select`; each signaling
/// connection costs a descriptor.
///
/// # Errors
/// The kernel's, in which case the limit is as it was.
pub fn raise_nofile() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live, writable rlimit for the length of the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a live rlimit, which is only read.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_the_descriptor_limit_is_idempotent() {
        let raised = raise_nofile().expect("a process may raise its soft limit");
        assert!(raised > 0);
        assert_eq!(raise_nofile().expect("again"), raised);
    }
}
