//! The guest agent: first process of a Berth guest.
//!
//! [`boot`] turns a kernel that has just unpacked its initramfs into a system
//! with a root, in this same process. [`server::Server`] then runs everything
//! in one loop over `poll`, without threads: the [`link::Link`] to the host
//! with its messages, each [`command::Command`] with its three pipes, ended
//! children, and the shell on the console. [`power`] ends the guest.
//!
//! In a machine of a pool, a [`service`] is a transaction program that waits
//! for conversations, each of which is a [`command::Command`] too; [`renew`]
//! makes the machine differ from the one it was made from; [`metadata`] passes
//! on what programs ask about their user, which only the host knows, and
//! [`database`] their connections to that user's database.
//!
//! [`self_check`], [`writer`], [`storage_key`] and [`activate`] are other programs
//! in the same file, known by their names. The only module that calls the kernel
//! without std between is [`sys`].
//!
//! Started as any other process than number 1 it brings up nothing and serves
//! commands on its standard input, a socket: so it is tested without a guest.

#![cfg_attr(not(test), no_main)]

mod activate;
mod boot;
mod command;
mod command_line;
mod database;
mod link;
mod log;
mod metadata;
mod port;
mod power;
mod renew;
mod self_check;
mod server;
mod service;
mod shell;
mod storage_key;
#[expect(unsafe_code, reason = "the system calls that std does not offer are foreign functions")]
mod sys;
mod writer;

use command_line::Options;
use server::{End, Server};

/// Entry from the C start-up code. std's own entry is left out: it insists on
/// a `/dev/null`, which an initramfs does not have yet.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the C start-up code calls this name and there is no other of it")]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    start()
}

#[cfg(test)]
fn main() {
    start();
}

fn start() -> i32 {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    if name.ends_with(boot::SELF_CHECK) {
        return status(boot::SELF_CHECK, self_check::run(arguments));
    }
    if name == activate::NAME {
        return activate::run(std::env::args_os().skip(1));
    }
    if name.ends_with(boot::WRITER) {
        return status(boot::WRITER, writer::run(arguments));
    }
    if name.ends_with(boot::STORAGE_KEY) {
        return status(boot::STORAGE_KEY, storage_key::run(arguments));
    }
    if std::process::id() != 1 {
        return serve_standard_input();
    }
    let database = match boot::bring_up() {
        Ok(Options { writer: Some((mebibytes, rate)), .. }) => {
            writer::be_the_guest(mebibytes, rate)
        }
        Ok(options) => options.database,
        Err(error) => {
            log::error(&format!("the guest cannot start: {error}"));
            power::off();
        }
    };
    match Server::for_guest(database) {
        Ok(mut server) => match server.run() {
            End::Restart => power::shut_down(power::restart),
            End::PowerOff | End::HostGone => power::shut_down(power::off),
        },
        Err(error) => {
            log::error(&format!("the guest cannot serve commands: {error}"));
            power::off();
        }
    }
}

fn status(program: &str, result: std::io::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{program}: {error}");
            1
        }
    }
}

fn serve_standard_input() -> i32 {
    match Server::for_standard_input() {
        Ok(mut server) => {
            server.run();
            0
        }
        Err(_) => 1,
    }
}
