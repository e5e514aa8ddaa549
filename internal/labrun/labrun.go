// Package labrun runs the real program in a lab: serve, listen and dial in a
// network of two homes, a file moved from one to the other, and an account of
// what happened.
//
//	labrun.go    the run
//	process.go   the programs in it
//	account.go   what is shown
//	programs.go  any other programs in a lab, for `bodkin lab run`
package labrun

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
)

// Config says what to run.
type Config struct {
	natlab.Options
	File string // what to move; this program itself if empty
	// Transports are the kinds of holes to punch; all if nil.
	Transports []string
	Runs       int // further runs, each with fresh nodes, a fresh server and a file
	Out        io.Writer
	JSON       bool
	Verbose    bool
	Log        io.Writer // of the programs, with Verbose
}

// Result is how a run went.
type Result struct {
	OK          bool    `json:"ok"`
	Why         string  `json:"why,omitempty"` // if not OK
	Direct      bool    `json:"direct"`
	DirectMS    float64 `json:"direct_ms,omitempty"`     // from the dial to the direct route, at the dialler
	LimitMS     float64 `json:"limit_ms"`                // RTT(A,S) + RTT(A,B)
	ConnectedMS float64 `json:"connected_ms,omitempty"`  // from the dial to a connection to write to
	RelayRTTMS  float64 `json:"relay_rtt_ms"`            // of the links alone
	FirstByteMS float64 `json:"first_byte_ms,omitempty"` // from the dial to the first byte at B
	TransferMS  float64 `json:"transfer_ms,omitempty"`   // from the dial to the end
	Bytes       int64   `json:"bytes"`                   // of the file
	SentRelay   uint64  `json:"sent_relay"`              // bytes of packets from A to B
	SentDirect  uint64  `json:"sent_direct"`             // the same, through the hole
	SHA256A     string  `json:"sha256_a"`                //
	SHA256B     string  `json:"sha256_b"`                //
	Runs        *Spread `json:"runs,omitempty"`          // of the further runs
}

// Spread sums up the further runs.
type Spread struct {
	Runs        int   `json:"runs"`
	Direct      int   `json:"direct"` // runs in which a hole opened
	Whole       int   `json:"whole"`  // runs in which the file arrived as it was
	DirectMS    Range `json:"direct_ms"`
	ConnectedMS Range `json:"connected_ms"`
	FirstByteMS Range `json:"first_byte_ms"`
}

// Range is the spread of a figure, in milliseconds.
type Range struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

func rangeOf(ms []float64) Range {
	if len(ms) == 0 {
		return Range{}
	}
	slices.Sort(ms)
	return Range{ms[0], ms[len(ms)/2], ms[len(ms)-1]}
}

// String shows the three figures.
func (r Range) String() string {
	return fmt.Sprintf("min %.1f, median %.1f, max %.1f ms", r.Min, r.Median, r.Max)
}

// run is the state of one.
type run struct {
	Config
	lab     *netbed.Lab
	dir     string
	self    string
	url     string
	idB     peer.ID
	account *account
	result  Result
}

// Run builds the lab and moves the file. The error says why there could be no
// run; a run that failed is a Result that is not OK.
func Run(ctx context.Context, cfg Config) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "bodkin-lab-")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	self, err := os.Executable()
	if err != nil {
		return Result{}, err
	}
	if cfg.File == "" {
		if cfg.File, err = sample(dir, self, cfg.Loss); err != nil {
			return Result{}, err
		}
	}
	begin := time.Now()
	lab, err := netbed.Start(ctx, natlab.TwoHomes(cfg.Options))
	if err != nil {
		return Result{}, err
	}
	defer lab.Close()
	r := &run{Config: cfg, lab: lab, dir: dir, self: self, account: newAccount(cfg)}
	r.account.built(lab, time.Since(begin))
	if r.result, err = r.move(ctx, r.File); err != nil {
		return Result{}, err
	}
	r.result.LimitMS = ms(2*(cfg.DelayA+cfg.InsideA+cfg.DelayS) + r.rttAB())
	r.result.RelayRTTMS = ms(2*(cfg.DelayA+cfg.InsideA+cfg.DelayS) + 2*(cfg.DelayB+cfg.InsideB+cfg.DelayS))
	if err := r.further(ctx); err != nil {
		return Result{}, err
	}
	r.judge()
	r.account.verdict(r.result)
	return r.result, nil
}

// sample is the file to move if none is named: this program, or where packets
// get lost only its beginning, since congestion control makes that slow.
func sample(dir, self string, loss float64) (string, error) {
	if loss < 0.01 {
		return self, nil
	}
	return beginning(dir, self)
}

// beginning is a file of the first 256 KiB of another.
func beginning(dir, of string) (string, error) {
	in, err := os.Open(of)
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	path := filepath.Join(dir, "sample")
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	_, err = io.CopyN(out, in, 256<<10)
	return path, errors.Join(err, out.Close())
}

func (r *run) rttAB() time.Duration { return 2 * (r.DelayA + r.InsideA + r.DelayB + r.InsideB) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// move runs the three programs, and moves a file from A to B.
func (r *run) move(ctx context.Context, file string) (res Result, _ error) {
	server, err := r.serve(ctx)
	if err != nil {
		return res, err
	}
	defer server.stop()
	received := filepath.Join(r.dir, "received")
	out, err := os.Create(received)
	if err != nil {
		return res, err
	}
	defer func() { _ = out.Close() }()
	listener, err := r.listen(ctx, out)
	if err != nil {
		return res, err
	}
	defer listener.stop()
	in, err := os.Open(file)
	if err != nil {
		return res, err
	}
	defer func() { _ = in.Close() }()
	dialler, err := r.dial(ctx, in)
	if err != nil {
		return res, err
	}
	defer dialler.stop()
	if err := errors.Join(dialler.wait(), listener.wait()); err != nil {
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		res.Why = err.Error()
	}
	res.sum(dialler, listener)
	if res.Bytes, res.SHA256A, err = hash(file); err != nil {
		return res, err
	}
	_, res.SHA256B, err = hash(received)
	return res, err
}

// further runs everything again, with a small file, and sums up.
func (r *run) further(ctx context.Context) error {
	if r.Runs == 0 {
		return nil
	}
	small, err := beginning(r.dir, r.self)
	if err != nil {
		return err
	}
	r.account.quiet = true
	all := &Spread{Runs: r.Runs}
	var direct, connected, first []float64
	for i := range r.Runs {
		res, err := r.move(ctx, small)
		if err != nil {
			return err
		}
		if res.Direct {
			all.Direct++
			direct = append(direct, res.DirectMS)
		}
		if res.whole() {
			all.Whole++
		}
		connected, first = append(connected, res.ConnectedMS), append(first, res.FirstByteMS)
		r.account.ran(i+1, r.Runs, res)
	}
	all.DirectMS, all.ConnectedMS, all.FirstByteMS = rangeOf(direct), rangeOf(connected), rangeOf(first)
	r.result.Runs = all
	return nil
}

// whole reports whether the file arrived as it was.
func (r Result) whole() bool { return r.Why == "" && r.SHA256A == r.SHA256B }

// judge says whether the run did what it should.
func (r *run) judge() {
	switch {
	case r.result.Why != "":
	case r.result.SHA256A != r.result.SHA256B:
		r.result.Why = "the file that arrived is not the one that was sent"
	case !r.result.Direct:
		r.result.Why = "no hole opened: the file went over the relay"
	case r.Runs > 0 && r.result.Runs.Direct < r.Runs:
		r.result.Why = fmt.Sprintf("no hole opened in %d of %d further runs", r.Runs-r.result.Runs.Direct, r.Runs)
	case r.Runs > 0 && r.result.Runs.Whole < r.Runs:
		r.result.Why = fmt.Sprintf("the file did not arrive whole in %d of %d further runs", r.Runs-r.result.Runs.Whole, r.Runs)
	default:
		r.result.OK = true
	}
}

func hash(path string) (n int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err = io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}
