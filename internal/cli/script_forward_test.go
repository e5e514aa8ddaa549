package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdEchoes serves a port of loopback until the script ends: it sends back what comes.
func cmdEchoes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || args[0] != "tcp" && args[0] != "udp" {
		ts.Fatalf("usage: echoes tcp|udp VAR")
	}
	var at net.Addr
	if args[0] == "udp" {
		c, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { _ = c.Close() })
		go echoPackets(c)
		at = c.LocalAddr()
	} else {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { _ = l.Close() })
		go echoAll(l)
		at = l.Addr()
	}
	_, port, err := net.SplitHostPort(at.String())
	ts.Check(err)
	ts.Setenv(args[1], port)
}

func echoPackets(c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

func echoAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, struct{ io.Reader }{c})
			_ = c.Close()
		}()
	}
}

// cmdTalk connects, says something and prints what comes back until the end. It fails
// if nothing does.
func cmdTalk(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: talk tcp|udp|unix ADDRESS TEXT")
	}
	text, err := talk(args[0], args[1], args[2])
	if err == nil && text == "" {
		err = errors.New("nothing came back")
	}
	if neg {
		if err == nil {
			ts.Fatalf("%q came back", text)
		}
		return
	}
	ts.Check(err)
	_, _ = io.WriteString(ts.Stdout(), text)
}

func talk(network, address, text string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if network == "udp" {
		return talkUDP(ctx, c, text)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	got, err := io.ReadAll(c)
	return string(got), err
}

// talkUDP repeats itself: datagrams may get lost.
func talkUDP(ctx context.Context, c net.Conn, text string) (string, error) {
	buf := make([]byte, 1<<16)
	for ctx.Err() == nil {
		if _, err := io.WriteString(c, text); err != nil {
			return "", err
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return string(buf[:n]), err
		}
	}
	return "", ctx.Err()
}
