package matrix

import (
	"math"
	"slices"
	"testing"

	"bodkin/natlab"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestPopulationIsWhole(t *testing.T) {
	t.Parallel()
	for corner := range 1 << assumptions {
		v, sum := make([]float64, assumptions), 0.0
		for i, a := range Assumptions() {
			v[i] = []float64{a.Low, a.High}[corner>>i&1]
		}
		for p, share := range weigh(v) {
			if share < 0 || !slices.Contains(natlab.Presets(), p) {
				t.Fatalf("corner %b: %s has a share of %v", corner, p, share)
			}
			sum += share
		}
		if !near(sum, 1) {
			t.Fatalf("corner %b: the shares are %v together", corner, sum)
		}
	}
}

func TestAssumptionsAreInOrder(t *testing.T) {
	t.Parallel()
	for _, a := range Assumptions() {
		if !(0 <= a.Low && a.Low <= a.Mid && a.Mid <= a.High && a.High <= 1) || a.Text == "" || a.Source == "" {
			t.Errorf("%+v", a)
		}
	}
}

func TestScoreOfAll(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0, 0.5, 1} {
		s, err := ScoreOf(func(_, _ natlab.Preset) (float64, bool) { return share, true })
		if err != nil || !near(s.Share, share) || !near(s.Low, share) || !near(s.High, share) {
			t.Errorf("all pairs at %v: %+v, %v", share, s, err)
		}
	}
}

// Where two hard NATs fail and everything else works, the score is what two people
// are not both behind a hard one.
func TestScoreOfHardPairs(t *testing.T) {
	t.Parallel()
	hard := 0.0
	for _, w := range Population() {
		if w.Preset == natlab.SymmetricRandom || w.Preset == natlab.SymmetricSequential {
			hard += w.Share
		}
	}
	is := func(p natlab.Preset) bool { return p == natlab.SymmetricRandom || p == natlab.SymmetricSequential }
	s, err := ScoreOf(func(a, b natlab.Preset) (float64, bool) {
		if is(a) && is(b) {
			return 0, true
		}
		return 1, true
	})
	if err != nil || !near(s.Share, 1-hard*hard) {
		t.Errorf("%v instead of %v: %v", s.Share, 1-hard*hard, err)
	}
	if s.Low >= s.Share || s.High <= s.Share {
		t.Errorf("the range is %v to %v", s.Low, s.High)
	}
}

// Who asks matters: the score counts both ways of a pair.
func TestScoreOfAPairBothWays(t *testing.T) {
	t.Parallel()
	share := make(map[natlab.Preset]float64)
	for _, w := range Population() {
		share[w.Preset] = w.Share
	}
	s, err := ScoreOf(func(a, b natlab.Preset) (float64, bool) {
		if a == natlab.Linux && b == natlab.CGNAT {
			return 1, true
		}
		return 0, true
	})
	if want := share[natlab.Linux] * share[natlab.CGNAT]; err != nil || !near(s.Share, want) {
		t.Errorf("%v instead of %v: %v", s.Share, want, err)
	}
}

func TestScoreNeedsEveryPair(t *testing.T) {
	t.Parallel()
	_, err := ScoreOf(func(a, _ natlab.Preset) (float64, bool) { return 1, a != natlab.CGNAT })
	if err == nil {
		t.Error("a population with a hole in it")
	}
}
