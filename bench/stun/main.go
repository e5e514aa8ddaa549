// STUN measures how many plain Binding requests a server answers in a second, and
// in a second of its CPU time: ours, and coturn's turnserver beside it.
//
//	go run ./bench/stun [--seconds 2] [--rounds 5] [--json]
//
// Each server runs in a process of its own on the first core, and the load on the
// second, over loopback. A few hundred requests are under way at all times, of many
// sources, so that a server never waits. The servers take turns; of each, the
// median round counts. On a machine that does other things, trust the CPU time.
//
// Linux only: it wants taskset(1) and /proc.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
)

// figure is what one server did.
type figure struct {
	Answers  float64 `json:"answers_per_s"`
	PerCPU   float64 `json:"answers_per_cpu_s"`
	CPUShare float64 `json:"cpu_share"` // of the core that it had
	Lost     float64 `json:"lost_share"`
}

type result struct {
	Bodkin figure  `json:"bodkin"`
	Coturn *figure `json:"coturn,omitempty"` // nil: not installed
	Ratio  float64 `json:"ratio_per_cpu_s,omitempty"`
}

func main() {
	seconds := flag.Float64("seconds", 2, "how long a round lasts")
	rounds := flag.Int("rounds", 5, "rounds of each server")
	asJSON := flag.Bool("json", false, "print JSON")
	serving := flag.Bool("server", false, "be the server (the program starts itself so)")
	loading := flag.String("load", "", "be the load on this endpoint (the program starts itself so)")
	flag.Parse()
	var err error
	switch d := time.Duration(*seconds * float64(time.Second)); {
	case *serving:
		err = serve()
	case *loading != "":
		err = load(*loading, d)
	default:
		err = measure(d, max(*rounds, 1), *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stun:", err)
		os.Exit(1)
	}
}

func measure(d time.Duration, rounds int, asJSON bool) error {
	servers := []func() (*server, error){startBodkin, startCoturn}
	figures := make([][]figure, len(servers))
	for range rounds {
		for i, start := range servers {
			f, err := oneRound(start, d)
			if err != nil {
				return err
			}
			if f != nil {
				figures[i] = append(figures[i], *f)
			}
		}
	}
	r := result{Bodkin: median(figures[0])}
	if len(figures[1]) > 0 {
		coturn := median(figures[1])
		r.Coturn, r.Ratio = &coturn, r.Bodkin.PerCPU/coturn.PerCPU
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	fmt.Printf("%-8s %12s %18s %10s %7s\n", "", "answers/s", "answers/CPU-s", "CPU", "lost")
	show := func(name string, f figure) {
		fmt.Printf("%-8s %12.0f %18.0f %9.0f%% %6.2f%%\n", name, f.Answers, f.PerCPU, 100*f.CPUShare, 100*f.Lost)
	}
	show("bodkin", r.Bodkin)
	if r.Coturn == nil {
		fmt.Println("coturn is not installed (Debian: apt-get install coturn)")
		return nil
	}
	show("coturn", *r.Coturn)
	fmt.Printf("bodkin answers %.2f times as many in a second of CPU time\n", r.Ratio)
	return nil
}

func oneRound(start func() (*server, error), d time.Duration) (*figure, error) {
	s, err := start()
	if s == nil || err != nil {
		return nil, err
	}
	defer s.stop()
	before, err := s.cpu()
	if err != nil {
		return nil, err
	}
	l, err := runLoad(s.at, d)
	if err != nil {
		return nil, err
	}
	after, err := s.cpu()
	if err != nil {
		return nil, err
	}
	cpu := (after - before).Seconds()
	n := float64(l.Answers)
	return &figure{n / l.Seconds, n / cpu, cpu / l.Seconds, float64(l.Sent-l.Answers) / float64(l.Sent)}, nil
}

// median is the round with the median of answers in a second of CPU time.
func median(all []figure) figure {
	slices.SortFunc(all, func(a, b figure) int { return int(a.PerCPU - b.PerCPU) })
	return all[len(all)/2]
}
