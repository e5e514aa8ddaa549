// Package nat says which kind of NAT a node is behind, in the words of RFC 4787
// and RFC 5780.
package nat

import "errors"

// Behavior is how a NAT treats endpoints, on the way out (mapping, RFC 4787 §4.1)
// or on the way in (filtering, RFC 4787 §5).
type Behavior uint8

// Behaviors. Unknown is the zero value: nothing was measured, nothing is assumed.
const (
	Unknown                 Behavior = iota
	None                             // no translation, no filter
	EndpointIndependent              // EIM, EIF
	AddressDependent                 // ADM, ADF
	AddressAndPortDependent          // APDM, APDF
)

var behaviorNames = [...]string{"unknown", "none", "endpoint-independent", "address-dependent", "address-and-port-dependent"}

// String is the RFC's word in lower case.
func (b Behavior) String() string {
	if int(b) < len(behaviorNames) {
		return behaviorNames[b]
	}
	return "unknown"
}

// Answer is yes, no, or not measured.
type Answer uint8

// Answers.
const (
	NotMeasured Answer = iota
	No
	Yes
)

// Profile is what is known of the NAT that a node is behind. The zero Profile
// knows nothing, and everything works with it, only slower.
type Profile struct {
	Mapping   Behavior
	Filtering Behavior
	// KeepsEarly says that a stranger's packet which comes before our own
	// leaves state behind in the NAT and moves our mapping to another port, as
	// Linux does where its INPUT chain accepts.
	KeepsEarly Answer
}

const profileVersion = 1

// Append encodes p: a version byte, then a byte a field.
func (p Profile) Append(b []byte) []byte {
	return append(b, profileVersion, byte(p.Mapping), byte(p.Filtering), byte(p.KeepsEarly))
}

// ProfileSize is how many bytes Append writes.
const ProfileSize = 4

// ParseProfile decodes what Append encoded. Values of a later version that this
// one does not know count as unknown.
func ParseProfile(b []byte) (Profile, error) {
	if len(b) < ProfileSize || b[0] < profileVersion {
		return Profile{}, errors.New("malformed NAT profile")
	}
	p := Profile{Mapping: Behavior(b[1]), Filtering: Behavior(b[2]), KeepsEarly: Answer(b[3])}
	if p.Mapping > AddressAndPortDependent {
		p.Mapping = Unknown
	}
	if p.Filtering > AddressAndPortDependent {
		p.Filtering = Unknown
	}
	if p.KeepsEarly > Yes {
		p.KeepsEarly = NotMeasured
	}
	return p, nil
}
