//! CPI-C return codes.

/// What a verb, or a program's call for it, came to: the numbers of CPI-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names are CPI-C's own and say what meaning() says")]
pub enum ReturnCode {
    Ok = 0,
    AllocateFailureNoRetry = 1,
    AllocateFailureRetry = 2,
    ConversationTypeMismatch = 3,
    PipNotSpecifiedCorrectly = 5,
    SecurityNotValid = 6,
    SyncLevelNotSupportedSystem = 7,
    SyncLevelNotSupportedProgram = 8,
    TpnNotRecognized = 9,
    TpNotAvailableNoRetry = 10,
    TpNotAvailableRetry = 11,
    DeallocatedAbend = 17,
    DeallocatedNormal = 18,
    ParameterError = 19,
    ProductSpecificError = 20,
    ProgramErrorNoTrunc = 21,
    ProgramErrorPurging = 22,
    ProgramErrorTrunc = 23,
    ProgramParameterCheck = 24,
    ProgramStateCheck = 25,
    ResourceFailureNoRetry = 26,
    ResourceFailureRetry = 27,
    Unsuccessful = 28,
    DeallocatedAbendService = 30,
    DeallocatedAbendTimer = 31,
    ServiceErrorNoTrunc = 32,
    ServiceErrorPurging = 33,
    ServiceErrorTrunc = 34,
    OperationIncomplete = 35,
    SystemEvent = 36,
    OperationNotAccepted = 37,
    ConversationEnding = 38,
    SendReceiveModeNotSupported = 39,
}

impl ReturnCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 33] = [
        Self::Ok,
        Self::AllocateFailureNoRetry,
        Self::AllocateFailureRetry,
        Self::ConversationTypeMismatch,
        Self::PipNotSpecifiedCorrectly,
        Self::SecurityNotValid,
        Self::SyncLevelNotSupportedSystem,
        Self::SyncLevelNotSupportedProgram,
        Self::TpnNotRecognized,
        Self::TpNotAvailableNoRetry,
        Self::TpNotAvailableRetry,
        Self::DeallocatedAbend,
        Self::DeallocatedNormal,
        Self::ParameterError,
        Self::ProductSpecificError,
        Self::ProgramErrorNoTrunc,
        Self::ProgramErrorPurging,
        Self::ProgramErrorTrunc,
        Self::ProgramParameterCheck,
        Self::ProgramStateCheck,
        Self::ResourceFailureNoRetry,
        Self::ResourceFailureRetry,
        Self::Unsuccessful,
        Self::DeallocatedAbendService,
        Self::DeallocatedAbendTimer,
        Self::ServiceErrorNoTrunc,
        Self::ServiceErrorPurging,
        Self::ServiceErrorTrunc,
        Self::OperationIncomplete,
        Self::SystemEvent,
        Self::OperationNotAccepted,
        Self::ConversationEnding,
        Self::SendReceiveModeNotSupported,
    ];

    /// CPI-C's number of this code.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code with CPI-C's `number`, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// True if a conversation that got this code goes on: the partner reported
    /// an error and has the turn. Only meaningful for a code that came from
    /// the partner.
    pub fn is_error_report(self) -> bool {
        matches!(
            self,
            Self::ProgramErrorNoTrunc
                | Self::ProgramErrorPurging
                | Self::ProgramErrorTrunc
                | Self::ServiceErrorNoTrunc
                | Self::ServiceErrorPurging
                | Self::ServiceErrorTrunc
        )
    }

    /// What the code says, as a line for a person.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::AllocateFailureNoRetry => "no session to the partner, and none to be expected",
            Self::AllocateFailureRetry => "no session to the partner now; try again",
            Self::ConversationTypeMismatch => {
                "the partner program does not take this type of conversation"
            }
            Self::PipNotSpecifiedCorrectly => "the program's parameters are not what it takes",
            Self::SecurityNotValid => "user, password or authority refused",
            Self::SyncLevelNotSupportedSystem => "the system does not support this sync level",
            Self::SyncLevelNotSupportedProgram => "the program does not support this sync level",
            Self::TpnNotRecognized => "no transaction program of this name",
            Self::TpNotAvailableNoRetry => "the program cannot be had, now or later",
            Self::TpNotAvailableRetry => "the program cannot be had now; try again",
            Self::DeallocatedAbend => "the partner program ended the conversation abnormally",
            Self::DeallocatedNormal => "the partner ended the conversation",
            Self::ParameterError => "a parameter names nothing that is there",
            Self::ProductSpecificError => "an error this system alone knows",
            Self::ProgramErrorNoTrunc => "the partner reports an error; nothing was lost",
            Self::ProgramErrorPurging => {
                "the partner reports an error; what was on its way to it is gone"
            }
            Self::ProgramErrorTrunc => "the partner reports an error in the middle of a record",
            Self::ProgramParameterCheck => "a parameter of this call is wrong",
            Self::ProgramStateCheck => "this call is not allowed in this state",
            Self::ResourceFailureNoRetry => "the conversation failed; the same would fail again",
            Self::ResourceFailureRetry => "the conversation was lost; try again",
            Self::Unsuccessful => "nothing to be had now",
            Self::DeallocatedAbendService => "the partner's system ended the conversation",
            Self::DeallocatedAbendTimer => "the partner's system ended it: out of time",
            Self::ServiceErrorNoTrunc => "the partner's system reports an error; nothing was lost",
            Self::ServiceErrorPurging => {
                "the partner's system reports an error; what was on its way is gone"
            }
            Self::ServiceErrorTrunc => "the partner's system reports an error in a record",
            Self::OperationIncomplete => "under way",
            Self::SystemEvent => "interrupted",
            Self::OperationNotAccepted => "another call of this conversation is under way",
            Self::ConversationEnding => "the conversation is being ended",
            Self::SendReceiveModeNotSupported => "full duplex is not supported",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cpi_c_s_and_come_back() {
        for code in ReturnCode::ALL {
            assert_eq!(ReturnCode::from_number(code.number()), Some(code));
        }
        let numbers: Vec<u32> = ReturnCode::ALL.iter().map(|code| code.number()).collect();
        let expected: Vec<u32> = (0..=39).filter(|n| !matches!(n, 4 | 12..=16 | 29)).collect();
        assert_eq!(numbers, expected);
    }
}
