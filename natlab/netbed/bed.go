package netbed

// Bed is a way to build a topology of namespaces. Hosts have the kernel's own UDP,
// TCP and ICMP on both, and the same addresses.
type Bed uint8

// Beds.
const (
	// Kernel has boxes with the kernel's own NAT. It builds those that Linux can
	// be.
	Kernel Bed = iota
	// Model has boxes of package natlab: every one.
	Model
)

// String is the word that the command line uses.
func (b Bed) String() string {
	if b == Model {
		return "model"
	}
	return "kernel"
}
