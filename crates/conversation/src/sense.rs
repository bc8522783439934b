//! Sense codes: four bytes in an FMH-7 that say what went wrong.

use std::fmt;

use crate::ReturnCode;

/// A sense code. Codes this crate does not know are carried as they came and
/// mean a failure that trying again will not mend.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sense(u32);

impl Sense {
    /// No transaction program of the name in the Attach.
    pub const TPN_NOT_RECOGNIZED: Self = Self(0x1008_6021);
    /// The program takes no initialisation parameters.
    pub const PIP_NOT_ALLOWED: Self = Self(0x1008_6031);
    /// The initialisation parameters are not what the program takes.
    pub const PIP_NOT_SPECIFIED_CORRECTLY: Self = Self(0x1008_6032);
    /// The program does not take this type of conversation.
    pub const CONVERSATION_TYPE_MISMATCH: Self = Self(0x1008_6034);
    /// The program does not support this sync level.
    pub const SYNC_LEVEL_NOT_SUPPORTED: Self = Self(0x1008_6041);
    /// The FM header is none that is known, or malformed.
    pub const UNRECOGNIZED_HEADER: Self = Self(0x1008_600b);
    /// Any violation of security; it never says which.
    pub const SECURITY_NOT_VALID: Self = Self(0x080f_6051);
    /// The program cannot be had now; trying again may help.
    pub const TP_NOT_AVAILABLE_RETRY: Self = Self(0x084b_6031);
    /// The program cannot be had, and trying again will not help.
    pub const TP_NOT_AVAILABLE_NO_RETRY: Self = Self(0x084c_0000);
    /// The partner program ended the conversation abnormally.
    pub const ABEND_PROGRAM: Self = Self(0x0864_0000);
    /// The partner's system ended the conversation abnormally.
    pub const ABEND_SERVICE: Self = Self(0x0864_0001);
    /// The partner's system ended the conversation: out of time.
    pub const ABEND_TIMER: Self = Self(0x0864_0002);
    /// The partner program reports an error, between records.
    pub const PROGRAM_ERROR: Self = Self(0x0889_0000);
    /// The partner program reports an error and leaves a record unfinished.
    pub const PROGRAM_ERROR_TRUNCATED: Self = Self(0x0889_0001);
    /// The partner's system reports an error, between records.
    pub const SERVICE_ERROR: Self = Self(0x0889_0100);
    /// The partner's system reports an error and leaves a record unfinished.
    pub const SERVICE_ERROR_TRUNCATED: Self = Self(0x0889_0101);

    /// The codes that have a name.
    pub const KNOWN: [Self; 16] = [
        Self::TPN_NOT_RECOGNIZED,
        Self::PIP_NOT_ALLOWED,
        Self::PIP_NOT_SPECIFIED_CORRECTLY,
        Self::CONVERSATION_TYPE_MISMATCH,
        Self::SYNC_LEVEL_NOT_SUPPORTED,
        Self::UNRECOGNIZED_HEADER,
        Self::SECURITY_NOT_VALID,
        Self::TP_NOT_AVAILABLE_RETRY,
        Self::TP_NOT_AVAILABLE_NO_RETRY,
        Self::ABEND_PROGRAM,
        Self::ABEND_SERVICE,
        Self::ABEND_TIMER,
        Self::PROGRAM_ERROR,
        Self::PROGRAM_ERROR_TRUNCATED,
        Self::SERVICE_ERROR,
        Self::SERVICE_ERROR_TRUNCATED,
    ];

    /// The sense code with these four bytes, read big-endian.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The four bytes, read big-endian.
    pub fn number(self) -> u32 {
        self.0
    }

    /// True if the conversation goes on after it (SEND_ERROR). Every other
    /// code ends the conversation.
    pub fn is_error_report(self) -> bool {
        matches!(
            self,
            Self::PROGRAM_ERROR
                | Self::PROGRAM_ERROR_TRUNCATED
                | Self::SERVICE_ERROR
                | Self::SERVICE_ERROR_TRUNCATED
        )
    }

    /// The return code of the verb at which a program learns of this.
    /// `purging`: the partner was receiving when it sent the error, so what
    /// was on its way to it is lost.
    ///
    /// CPI-C has no number for parameters that are not allowed; they count as
    /// parameters not specified correctly.
    pub fn return_code(self, purging: bool) -> ReturnCode {
        match self {
            Self::TPN_NOT_RECOGNIZED => ReturnCode::TpnNotRecognized,
            Self::PIP_NOT_ALLOWED | Self::PIP_NOT_SPECIFIED_CORRECTLY => {
                ReturnCode::PipNotSpecifiedCorrectly
            }
            Self::CONVERSATION_TYPE_MISMATCH => ReturnCode::ConversationTypeMismatch,
            Self::SYNC_LEVEL_NOT_SUPPORTED => ReturnCode::SyncLevelNotSupportedProgram,
            Self::SECURITY_NOT_VALID => ReturnCode::SecurityNotValid,
            Self::TP_NOT_AVAILABLE_RETRY => ReturnCode::TpNotAvailableRetry,
            Self::TP_NOT_AVAILABLE_NO_RETRY => ReturnCode::TpNotAvailableNoRetry,
            Self::ABEND_PROGRAM => ReturnCode::DeallocatedAbend,
            Self::ABEND_SERVICE => ReturnCode::DeallocatedAbendService,
            Self::ABEND_TIMER => ReturnCode::DeallocatedAbendTimer,
            Self::PROGRAM_ERROR | Self::PROGRAM_ERROR_TRUNCATED if purging => {
                ReturnCode::ProgramErrorPurging
            }
            Self::SERVICE_ERROR | Self::SERVICE_ERROR_TRUNCATED if purging => {
                ReturnCode::ServiceErrorPurging
            }
            Self::PROGRAM_ERROR => ReturnCode::ProgramErrorNoTrunc,
            Self::PROGRAM_ERROR_TRUNCATED => ReturnCode::ProgramErrorTrunc,
            Self::SERVICE_ERROR => ReturnCode::ServiceErrorNoTrunc,
            Self::SERVICE_ERROR_TRUNCATED => ReturnCode::ServiceErrorTrunc,
            _ => ReturnCode::ResourceFailureNoRetry,
        }
    }

    /// What the code says, as a line for a person.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::PIP_NOT_ALLOWED => "the program takes no parameters",
            Self::UNRECOGNIZED_HEADER => "an FM header is unknown or malformed",
            Self::ABEND_PROGRAM => "ended abnormally by the program",
            Self::ABEND_SERVICE => "ended abnormally by the system",
            Self::ABEND_TIMER => "ended by the system: out of time",
            Self::PROGRAM_ERROR => "the program reports an error",
            Self::PROGRAM_ERROR_TRUNCATED => "the program reports an error within a record",
            Self::SERVICE_ERROR => "the system reports an error",
            Self::SERVICE_ERROR_TRUNCATED => "the system reports an error within a record",
            other if Self::KNOWN.contains(&other) => other.return_code(false).meaning(),
            _ => "a sense code that is not known here",
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X} {:04X}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Debug for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sense({self}: {})", self.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_codes_mean_what_cpi_c_says() {
        let table = [
            (0x1008_6021, 9),
            (0x1008_6031, 5),
            (0x1008_6032, 5),
            (0x1008_6034, 3),
            (0x1008_6041, 8),
            (0x1008_600b, 26),
            (0x080f_6051, 6),
            (0x084b_6031, 11),
            (0x084c_0000, 10),
            (0x0864_0000, 17),
            (0x0864_0001, 30),
            (0x0864_0002, 31),
            (0x0889_0000, 21),
            (0x0889_0001, 23),
            (0x0889_0100, 32),
            (0x0889_0101, 34),
            (0xdead_beef, 26),
        ];
        for (sense, code) in table {
            assert_eq!(Sense::from_number(sense).return_code(false).number(), code, "{sense:08x}");
        }
        assert_eq!(Sense::PROGRAM_ERROR.return_code(true), ReturnCode::ProgramErrorPurging);
        assert_eq!(Sense::SERVICE_ERROR.return_code(true), ReturnCode::ServiceErrorPurging);
    }

    #[test]
    fn a_report_is_a_code_after_which_the_conversation_goes_on() {
        for sense in Sense::KNOWN {
            assert_eq!(sense.is_error_report(), sense.return_code(false).is_error_report());
            assert_eq!(sense.is_error_report(), sense.number() >> 16 == 0x0889);
        }
    }
}
