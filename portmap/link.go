package portmap

// link is the socket through which one address of ours talks to one gateway's
// port 5351.
type link struct{}
