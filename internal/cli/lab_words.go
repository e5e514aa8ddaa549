package cli

// Beds, as the command line names them.
const (
	bedSim    = "sim"
	bedModel  = "model"
	bedKernel = "kernel"
)
