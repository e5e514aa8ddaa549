// Package bodkin opens a direct, encrypted connection between two machines that
// both sit behind NATs or firewalls, with the help of one small server that
// anyone can run.
//
// A peer is named by its key, not by an address:
//
//	node, err := bodkin.Start(ctx, bodkin.Config{Key: key, Server: url})
//	conn, err := node.Dial(ctx, id, "chat")
//
// The connection works at once, over the server's relay, and moves to a direct
// path as soon as a hole is punched, without the application noticing; it falls
// back as quietly. Everything is encrypted from end to end, so that the server
// sees who talks to whom and how much, and nothing else.
//
// The other machine listens:
//
//	listener, err := node.Listen("chat")
//	conn, err := listener.Accept()
//
// Two that do not know each other's ID yet meet by a code, which one person reads to
// another:
//
//	invitation, err := node.Invite(ctx)         // invitation.Code(): 42-lantern-copper
//	id, err := invitation.Wait(ctx)             // here
//	id, err := node.Join(ctx, code)             // there
//
// Holes are punched by UDP, by TCP, and where nothing better gets through by ICMP; the
// server is reached over TCP and TLS, too, where UDP is blocked. [Node.DialTCP] has a
// hole by TCP for itself: plain TLS, on the system's own connection. [Config].Serverless
// does without a server where one side has a public address.
//
// Run a server with `bodkin serve`, or embed bodkin/rendezvous.
package bodkin
