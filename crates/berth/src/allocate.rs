//! `berth allocate`: a conversation with a program of a service pool, joined
//! to this process.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use lu62::{CallError, JoinError, Partner, Request, ReturnCode, SyncLevel};

use crate::args::{AllocateArgs, Global, Sync};
use crate::{Failure, print_json, state_dir};

/// Exit statuses, with sysexits.h's numbers.
const UNAVAILABLE: u8 = 69;
const PROGRAM: u8 = 70;
const TRY_AGAIN: u8 = 75;
const NO_PERMISSION: u8 = 77;

pub(crate) fn allocate(global: &Global, args: &AllocateArgs) -> Result<ExitCode, Failure> {
    let request = request(global, args)?;
    let mut kept = Vec::new();
    let ended =
        if global.json { talk(&request, &mut kept) } else { talk(&request, &mut io::stdout()) };
    let (status, code, reason) = match ended {
        Ok(()) => (0, ReturnCode::Ok, None),
        Err(JoinError::Call(error)) => {
            (status(&error), error.return_code(), Some(error.to_string()))
        }
        Err(error @ JoinError::Local(_)) => return Err(Failure::Other(error.to_string())),
    };
    if let Some(reason) = &reason {
        eprintln!("berth: {reason}");
    }
    if global.json {
        print_json(&serde_json::json!({
            "result": if reason.is_none() { "confirmed" } else { "failed" },
            "code": code.number(),
            "reason": reason,
            "output": String::from_utf8_lossy(&kept),
        }));
    }
    Ok(ExitCode::from(status))
}

fn talk(request: &Request, output: &mut impl io::Write) -> Result<(), JoinError> {
    let mut conversation = request.allocate()?;
    if conversation.sync_level() == SyncLevel::Confirm {
        // A refusal shows before any input is read.
        conversation.confirm()?;
    }
    conversation.join(io::stdin(), output)
}

fn request(global: &Global, args: &AllocateArgs) -> Result<Request, Failure> {
    let partner = match (&args.host, &args.ca, &args.socket) {
        (Some(address), Some(trust), _) => {
            Partner::Host { address: address.clone(), trust: trust.clone() }
        }
        (_, _, Some(socket)) => Partner::Socket(socket.clone()),
        _ => Partner::Socket(state_dir(global)?.gateway_socket()),
    };
    let mut request = Request::initialize(partner);
    request.set_tp_name(&args.name);
    if let Some(user) = &args.user {
        match (&args.password_file, &args.token_file) {
            (Some(file), _) => request.set_security_password(user, &secret(file)?),
            (_, Some(file)) => request.set_security_token(user, &secret(file)?),
            (None, None) => request.set_security_same(user),
        };
    }
    request.set_sync_level(match args.sync {
        Sync::Confirm => SyncLevel::Confirm,
        Sync::None => SyncLevel::None,
    });
    let parameters: Vec<_> =
        args.parameters.iter().map(|parameter| parameter.clone().into_bytes()).collect();
    request.set_pip(&parameters);
    Ok(request)
}

/// A file's text, without the end of its line.
fn secret(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Other(format!("cannot read {}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The exit status that says what became of the conversation.
fn status(error: &CallError) -> u8 {
    if matches!(error, CallError::Connect(_)) {
        return 1;
    }
    match error.return_code() {
        ReturnCode::TpNotAvailableRetry
        | ReturnCode::AllocateFailureRetry
        | ReturnCode::ResourceFailureRetry => TRY_AGAIN,
        ReturnCode::SecurityNotValid => NO_PERMISSION,
        ReturnCode::DeallocatedAbend
        | ReturnCode::DeallocatedAbendService
        | ReturnCode::DeallocatedAbendTimer => PROGRAM,
        ReturnCode::TpNotAvailableNoRetry
        | ReturnCode::TpnNotRecognized
        | ReturnCode::PipNotSpecifiedCorrectly
        | ReturnCode::ConversationTypeMismatch
        | ReturnCode::SyncLevelNotSupportedProgram
        | ReturnCode::SyncLevelNotSupportedSystem
        | ReturnCode::AllocateFailureNoRetry
        | ReturnCode::ResourceFailureNoRetry => UNAVAILABLE,
        _ => 1,
    }
}
