package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/internal/app/pipe"
	"bodkin/internal/control"
	"bodkin/peer"
	"bodkin/rendezvous"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// nodeFlags are what every node command takes.
type nodeFlags struct {
	key        string
	server     string
	transports []string
	via        string
	port       uint16
	noPortMap  bool
	events     string
	serverless *bodkin.Serverless // of listen and dial: no server
}

// registerTime is how long a command waits for its server.
const registerTime = 10 * time.Second

// defaultService is what listen and dial mean without a SERVICE.
const defaultService = "pipe"

func (a *app) addKeyFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.node.key, "key", "", "`FILE` of the node key (default: bodkin/node.key in the configuration folder)")
	markSetting(c.Flags().Lookup("key"))
}

func (a *app) addNodeFlags(c *cobra.Command) {
	a.addKeyFlag(c)
	f := pflag.NewFlagSet("node", pflag.ContinueOnError)
	f.StringVar(&a.node.server, "server", "", "`URL` of the rendezvous server, as 'bodkin serve' prints it")
	f.StringSliceVar(&a.node.transports, "transports", nil, "`LIST` of the kinds of holes to punch, of: "+strings.Join(bodkin.Transports(), ", ")+"; empty: stay on the relay (default: all)")
	f.StringVar(&a.node.via, "server-via", "", "`WAY` to the server, of: udp, tcp, tls, icmp (default: all, udp first; HTTPS_PROXY and ALL_PROXY count for the others)")
	f.Uint16Var(&a.node.port, "port", 0, "local `PORT`, of UDP and TCP (default: any)")
	f.BoolVar(&a.node.noPortMap, "no-portmap", false, "do not ask routers to map the port (PCP, NAT-PMP, UPnP)")
	f.StringVar(&a.node.events, "events", "", "`FILE` to append what happens to, as JSON, an object a line")
	markSettings(f)
	c.Flags().AddFlagSet(f)
}

// service is the optional argument SERVICE.
func service(args []string) (string, error) {
	if len(args) == 0 {
		return defaultService, nil
	}
	if err := bodkin.CheckService(args[0]); err != nil {
		return "", &codeError{codeUsage, err}
	}
	return args[0], nil
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

// config is the Config that the flags describe. The key comes last: a command
// line that is wrong makes none.
func (a *app) config() (bodkin.Config, error) {
	c := bodkin.Config{
		Server: a.node.server, Transports: a.node.transports, ServerVia: a.node.via, Port: a.node.port, NoPortMap: a.node.noPortMap, Logger: a.logger(),
	}
	if c.Serverless = a.node.serverless; c.Serverless != nil {
		c.Server = "" // the one of the environment is for other commands
	} else if c.Server == "" {
		return c, &codeError{codeUsage, errors.New(
			"no server: give its URL with --server or in BODKIN_SERVER, or as server in the configuration file, as `bodkin serve` prints it")}
	}
	c.Key = peer.NewKey([32]byte{}) // until the rest is known to be right
	err := c.Check()
	if err != nil {
		return c, &codeError{codeUsage, err}
	}
	c.Key, err = a.loadKey()
	return c, err
}

// starter starts a node of our own.
type starter func(ctx context.Context, c bodkin.Config, log *eventLog) (*bodkin.Node, error)

// begin starts a node of our own, with its events logged until ctx ends.
func begin(ctx context.Context, c bodkin.Config, log *eventLog) (*bodkin.Node, error) {
	n, err := bodkin.Start(ctx, c)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w; leave --port out, or choose another", err)
	}
	if err != nil {
		return nil, err
	}
	log.follow(ctx, n)
	return n, nil
}

// start begins a node, and waits for its registration.
func start(ctx context.Context, c bodkin.Config, log *eventLog) (*bodkin.Node, error) {
	n, err := begin(ctx, c, log)
	if err != nil {
		return nil, err
	}
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
func (a *app) open(ctx context.Context) (control.Node, error) { return a.openBy(ctx, start) }

func (a *app) openBy(ctx context.Context, start starter) (control.Node, error) {
	if n := a.running(ctx); n != nil {
		return n, nil
	}
	c, err := a.config()
	if err != nil {
		return nil, err
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

// running is the running node of our key, if it is what the flags ask for.
func (a *app) running(ctx context.Context) control.Node {
	if slices.ContainsFunc(a.given, func(name string) bool { return name != "key" && name != "server" }) {
		return nil
	}
	if a.node.serverless != nil {
		return nil // it has a server
	}
	path, err := keyFile(a.node.key, "node.key")
	if err != nil {
		return nil
	}
	key, err := peer.LoadKey(path)
	if err != nil {
		return nil
	}
	n, err := control.Connect(ctx, key.ID())
	if err != nil {
		return nil
	}
	if url, err := rendezvous.ParseURL(a.node.server); slices.Contains(a.given, "server") && (err != nil || url.String() != n.Server()) {
		return nil
	}
	return n
}

// logged is a node of our own with its event log.
type logged struct {
	control.Node
	log  *eventLog
	n    *bodkin.Node
	once sync.Once
}

func (l *logged) Dial(ctx context.Context, id peer.ID, service string) (forward.Conn, error) {
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

func (l *logged) Explain(ctx context.Context, id peer.ID) (bodkin.Explanation, error) {
	l.once.Do(func() { l.log.say(eventDialling, bodkin.Route{}) })
	return l.n.Explain(ctx, id)
}

func (l *logged) Shutdown(ctx context.Context) error {
	err := l.Node.Shutdown(ctx)
	l.log.status(l.n.Status())
	l.log.close()
	return err
}

// end ends a node and returns err: after an error at once, and otherwise when the
// peers have read what was written to them.
func end(ctx context.Context, n interface{ Shutdown(context.Context) error }, err error) error {
	if err == nil || errors.Is(err, bodkin.ErrDisplaced) {
		return errors.Join(err, n.Shutdown(ctx))
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_ = n.Shutdown(ctx)
	return err
}

// streams are our standard streams, for a connection.
func (a *app) streams() pipe.Streams {
	s := pipe.Streams{In: a.in, Out: a.out}
	if f, ok := a.in.(*os.File); ok {
		info, err := f.Stat()
		s.Person = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}
