package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"bodkin"
	"bodkin/internal/app/pipe"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

// nodeFlags are what every node command takes.
type nodeFlags struct {
	key        string
	server     string
	transports []string
	port       uint16
	events     string
}

// registerTime is how long a command waits for its server.
const registerTime = 10 * time.Second

func (a *app) addNodeFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.node.key, "key", "", "file of the node key (default: node.key in the configuration folder)")
	f.StringVar(&a.node.server, "server", "", "URL of the rendezvous server, as `bodkin serve` prints it")
	f.StringSliceVar(&a.node.transports, "transports", nil, "kinds of holes to punch, of: udp (default: all)")
	f.Uint16Var(&a.node.port, "port", 0, "local UDP port (default: any)")
	f.StringVar(&a.node.events, "events", "", "file to append what happens to, as JSON lines")
}

// keyFile is where a key is, by default in the configuration folder.
func keyFile(given, name string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w; name a key file with --key", err)
	}
	return filepath.Join(dir, "bodkin", name), nil
}

func (a *app) loadKey() (peer.Key, error) {
	path, err := keyFile(a.node.key, "node.key")
	if err != nil {
		return peer.Key{}, err
	}
	return peer.LoadOrCreateKey(path)
}

// config is the Config that the flags describe.
func (a *app) config() (bodkin.Config, error) {
	key, err := a.loadKey()
	if err != nil {
		return bodkin.Config{}, err
	}
	if a.node.server == "" {
		return bodkin.Config{}, &codeError{codeUsage, errors.New(
			"no server: give its URL with --server or in BODKIN_SERVER, as `bodkin serve` prints it")}
	}
	c := bodkin.Config{
		Key: key, Server: a.node.server, Transports: a.node.transports, Port: a.node.port, Logger: a.logger(),
	}
	if err := c.Check(); err != nil {
		return bodkin.Config{}, &codeError{codeUsage, err}
	}
	return c, nil
}

// start starts a node of our own, with its events logged until ctx ends, and
// waits for its registration.
func start(ctx context.Context, c bodkin.Config, log *eventLog) (*bodkin.Node, error) {
	n, err := bodkin.Start(ctx, c)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: leave --port out, or choose another", err)
	}
	if err != nil {
		return nil, err
	}
	log.follow(ctx, n)
	if err := registered(ctx, n); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

// registered waits until the server knows the node.
func registered(ctx context.Context, n *bodkin.Node) error {
	ctx, cancel := context.WithTimeout(ctx, registerTime)
	defer cancel()
	return n.WaitRegistered(ctx)
}

// open is the running node of our key on this machine, or a node of our own.
func (a *app) open(ctx context.Context) (control.Node, error) {
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	running, err := control.Connect(ctx, c.Key.ID())
	if err == nil && a.node.events == "" && a.node.port == 0 {
		if running.Server() != c.Server {
			_ = running.Shutdown(ctx)
			return nil, fmt.Errorf("a running node has this key and uses another server (%s): name that one, or another --key", running.Server())
		}
		return running, nil
	}
	log, err := a.openEvents()
	if err != nil {
		return nil, err
	}
	n, err := start(ctx, c, log)
	if err != nil {
		log.close()
		return nil, err
	}
	return &logged{Node: control.Local(n), log: log, n: n}, nil
}

// logged is a node of our own with its event log.
type logged struct {
	control.Node
	log  *eventLog
	n    *bodkin.Node
	once sync.Once
}

func (l *logged) Dial(ctx context.Context, id peer.ID, service string) (pipe.Conn, error) {
	l.log.say(eventDialling, bodkin.Route{})
	c, err := l.n.Dial(ctx, id, service)
	if err != nil {
		return nil, err
	}
	l.log.say(eventConnected, c.Route())
	return c, nil
}

func (l *logged) Ping(ctx context.Context, id peer.ID) (bodkin.Pong, error) {
	l.once.Do(func() { l.log.say(eventDialling, bodkin.Route{}) })
	return l.n.Ping(ctx, id)
}

func (l *logged) Shutdown(ctx context.Context) error {
	err := l.Node.Shutdown(ctx)
	l.log.status(l.n.Status())
	l.log.close()
	return err
}

// closeNode ends a node without losing what was written.
func closeNode(n interface{ Shutdown(context.Context) error }) error {
	ctx, cancel := context.WithTimeout(context.Background(), registerTime)
	defer cancel()
	return n.Shutdown(ctx)
}

// parsePeer reads a PEER argument.
func parsePeer(text string) (peer.ID, error) {
	id, err := peer.ParseID(text)
	if err != nil {
		return id, &codeError{codeUsage, err}
	}
	return id, nil
}
