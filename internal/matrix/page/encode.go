package page

import (
	"encoding/json"
	"math"
	"time"

	"bodkin/internal/matrix/trace"
)

// encode is the data for the script. It is most of the page, and so it is terse:
// texts stand once, in a list, and packets are lists of numbers.
func (r Report) encode() ([]byte, error) {
	t := texts{index: make(map[string]int)}
	d := data{Names: []nameData{}, Cells: [][]*cellData{}}
	for _, n := range r.Names {
		d.Names = append(d.Names, nameData(n))
	}
	for _, row := range r.Cells {
		out := []*cellData{}
		for _, c := range row {
			out = append(out, t.cell(c))
		}
		d.Cells = append(d.Cells, out)
	}
	d.Texts = t.list
	return json.Marshal(d) // which leaves no "<" in it
}

type data struct {
	Names []nameData    `json:"names"`
	Cells [][]*cellData `json:"cells"`
	Texts []string      `json:"texts"`
}

type nameData struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

type cellData struct {
	Runs    int       `json:"runs"`
	Times   []float64 `json:"times"` // ms, sorted
	Packets float64   `json:"packets"`
	Relayed float64   `json:"relayed"`
	Limit   float64   `json:"limit"`
	Why     [][2]int  `json:"why"` // text, times
	Kept    []runData `json:"kept"`
}

type runData struct {
	Number  int            `json:"number"`
	Direct  bool           `json:"direct"`
	Outcome int            `json:"outcome"`
	Lines   []trace.Line   `json:"lines"`
	Packets [][]any        `json:"packets"` // name, class, bytes, TTL, then stops
	Omitted map[string]int `json:"omitted,omitempty"`
}

// texts are the texts of a page, each once.
type texts struct {
	list  []string
	index map[string]int
}

func (t *texts) of(s string) int {
	i, ok := t.index[s]
	if !ok {
		i = len(t.list)
		t.index[s] = i
		t.list = append(t.list, s)
	}
	return i
}

func (t *texts) cell(c *Cell) *cellData {
	if c == nil {
		return nil
	}
	d := &cellData{
		Runs: c.Runs, Packets: round(c.Packets), Relayed: round(c.Relayed), Limit: ms(c.Limit),
		Times: []float64{}, Why: [][2]int{}, Kept: []runData{},
	}
	for _, x := range c.sorted() {
		d.Times = append(d.Times, ms(x))
	}
	for _, w := range c.Why {
		d.Why = append(d.Why, [2]int{t.of(w.Text), w.Times})
	}
	for _, k := range c.Kept {
		d.Kept = append(d.Kept, t.run(k))
	}
	return d
}

func (t *texts) run(k Run) runData {
	d := runData{Number: k.Number, Direct: k.Direct, Outcome: t.of(k.Outcome), Lines: k.Trace.Lines, Packets: [][]any{}}
	for _, p := range k.Trace.Packets {
		row := []any{t.of(p.Name), p.Class, p.Bytes, p.TTL}
		for _, s := range p.Stops {
			row = append(row, s.Line, ms(s.At), s.Fate, t.of(s.Text))
		}
		d.Packets = append(d.Packets, row)
	}
	for class, n := range k.Trace.Omitted {
		if d.Omitted == nil {
			d.Omitted = make(map[string]int)
		}
		d.Omitted[class.String()] = n
	}
	return d
}

// ms is a time in milliseconds, to a hundredth.
func ms(d time.Duration) float64 { return math.Round(float64(d)/float64(10*time.Microsecond)) / 100 }

func round(x float64) float64 { return math.Round(x*10) / 10 }
