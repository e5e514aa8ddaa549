package pcp

import "fmt"

// Result is the result code of a PCP response (RFC 6887 §7.4).
type Result uint8

// Results.
const (
	Success Result = iota
	UnsuppVersion
	NotAuthorized
	MalformedRequest
	UnsuppOpcode
	UnsuppOption
	MalformedOption
	NetworkFailure
	NoResources
	UnsuppProtocol
	UserExQuota
	CannotProvideExternal
	AddressMismatch
	ExcessiveRemotePeers
)

var resultNames = [...]string{
	"SUCCESS", "UNSUPP_VERSION", "NOT_AUTHORIZED", "MALFORMED_REQUEST", "UNSUPP_OPCODE", "UNSUPP_OPTION",
	"MALFORMED_OPTION", "NETWORK_FAILURE", "NO_RESOURCES", "UNSUPP_PROTOCOL", "USER_EX_QUOTA",
	"CANNOT_PROVIDE_EXTERNAL", "ADDRESS_MISMATCH", "EXCESSIVE_REMOTE_PEERS",
}

// String is the RFC's name.
func (r Result) String() string {
	if int(r) < len(resultNames) {
		return resultNames[r]
	}
	return fmt.Sprintf("RESULT_%d", uint8(r))
}

// PMPResult is the result code of a NAT-PMP response (RFC 6886 §3.5).
type PMPResult uint16

// NAT-PMP's results.
const (
	PMPSuccess PMPResult = iota
	PMPUnsupportedVersion
	PMPRefused
	PMPNetworkFailure
	PMPOutOfResources
	PMPUnsupportedOpcode
)

var pmpResultNames = [...]string{
	"Success", "Unsupported Version", "Not Authorized/Refused", "Network Failure", "Out of resources", "Unsupported opcode",
}

// String is the RFC's name.
func (r PMPResult) String() string {
	if int(r) < len(pmpResultNames) {
		return pmpResultNames[r]
	}
	return fmt.Sprintf("Result %d", uint16(r))
}
