// Package labrun runs the real program in a lab: serve, listen and dial in a
// network of two homes, a file moved from one to the other, and an account of
// what happened.
//
//	labrun.go   the run
//	process.go  the programs in it
//	account.go  what is shown
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
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
)

// Config says what to run.
type Config struct {
	natlab.Options
	File    string // what to move; this program itself if empty
	Runs    int    // further measurements of the time to a direct route
	Out     io.Writer
	JSON    bool
	Verbose bool
	Log     io.Writer // of the programs, with Verbose
}

// Result is how a run went.
type Result struct {
	OK            bool    `json:"ok"`
	Why           string  `json:"why,omitempty"` // if not OK
	Direct        bool    `json:"direct"`
	DirectMS      float64 `json:"direct_ms,omitempty"`         // from the dial to the direct route, at the dialler
	LimitMS       float64 `json:"limit_ms"`                    // RTT(A,S) + RTT(A,B)
	ConnectedMS   float64 `json:"connected_ms,omitempty"`      // from the dial to a connection to write to
	RelayRTTMS    float64 `json:"relay_rtt_ms"`                // of the links alone
	FirstByteMS   float64 `json:"first_byte_ms,omitempty"`     // from the dial to the first byte at B
	TransferMS    float64 `json:"transfer_ms,omitempty"`       // from the dial to the end
	Bytes         int64   `json:"bytes"`                       // of the file
	SentRelay     uint64  `json:"sent_relay"`                  // bytes of packets from A to B
	SentDirect    uint64  `json:"sent_direct"`                 // the same, through the hole
	SHA256A       string  `json:"sha256_a"`                    //
	SHA256B       string  `json:"sha256_b"`                    //
	RunsDirect    int     `json:"runs_direct,omitempty"`       // of Runs
	RunsMinMS     float64 `json:"runs_min_ms,omitempty"`       //
	RunsMedianMS  float64 `json:"runs_median_ms,omitempty"`    //
	RunsMaxMS     float64 `json:"runs_max_ms,omitempty"`       //
	RunsConnected float64 `json:"runs_connected_ms,omitempty"` // median
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
	r.result.LimitMS = ms(2*(cfg.DelayA+cfg.InsideA+cfg.DelayS) + r.rttAB())
	r.result.RelayRTTMS = ms(2*(cfg.DelayA+cfg.InsideA+cfg.DelayS) + 2*(cfg.DelayB+cfg.InsideB+cfg.DelayS))
	r.account.built(lab, time.Since(begin))
	if err := r.move(ctx); err != nil {
		return Result{}, err
	}
	for range cfg.Runs {
		if err := r.measure(ctx); err != nil {
			return Result{}, err
		}
	}
	r.spread()
	r.judge()
	r.account.verdict(r.result)
	return r.result, nil
}

// sample is the file to move if none is named: this program, or where packets
// get lost only its beginning, since TCP-like congestion control makes it slow.
func sample(dir, self string, loss float64) (string, error) {
	if loss < 0.01 {
		return self, nil
	}
	in, err := os.Open(self)
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

// move runs the three programs and moves the file.
func (r *run) move(ctx context.Context) error {
	server, err := r.serve(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	received := filepath.Join(r.dir, "received")
	out, err := os.Create(received)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	listener, err := r.listen(ctx, out)
	if err != nil {
		return err
	}
	defer listener.stop()
	in, err := os.Open(r.File)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	dialler, err := r.dial(ctx, in)
	if err != nil {
		return err
	}
	defer dialler.stop()
	if err := errors.Join(dialler.wait(), listener.wait()); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.result.Why = err.Error()
	}
	r.sum(dialler, listener)
	r.result.Bytes, r.result.SHA256A, err = hash(r.File)
	if err != nil {
		return err
	}
	_, r.result.SHA256B, err = hash(received)
	return err
}

// judge says whether the run did what it should.
func (r *run) judge() {
	switch {
	case r.result.Why != "":
	case r.result.SHA256A != r.result.SHA256B:
		r.result.Why = "the file that arrived is not the one that was sent"
	case !r.result.Direct:
		r.result.Why = "no hole opened: the file went over the relay"
	case r.result.RunsDirect < r.Runs:
		r.result.Why = fmt.Sprintf("no hole opened in %d of %d further runs", r.Runs-r.result.RunsDirect, r.Runs)
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
