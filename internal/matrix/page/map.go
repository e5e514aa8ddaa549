package page

import (
	"fmt"
	"math"
)

// heatMap is the geometry of the heat map, in units of its SVG.
type heatMap struct {
	Width, Height int
	Rows, Columns []label
	Cells         []mapCell
	Scale         []step
}

type label struct {
	X, Y  int
	Index int
	Name
}

type mapCell struct {
	X, Y, W, H     int
	TextX, TextY   int
	Row, Column    int
	From, To       string
	Class, Percent string
	Title          string
}

// step is one colour of the legend.
type step struct {
	X           int
	Class, Text string
}

const (
	cellWidth   = 42
	cellHeight  = 28
	cellGap     = 2
	letterWidth = 7 // of labels, about
	stepWidth   = 30
)

func (r Report) heatMap() heatMap {
	longest := 0
	for _, n := range r.Names {
		longest = max(longest, len(n.Name))
	}
	// Column labels stand at 50 degrees.
	left := longest*letterWidth + 30
	top := int(float64(longest*letterWidth)*math.Sin(50*math.Pi/180)) + 24
	m := heatMap{
		Width:  left + len(r.Names)*cellWidth + int(float64(longest*letterWidth)*math.Cos(50*math.Pi/180)),
		Height: top + len(r.Names)*cellHeight + 8,
	}
	for i, n := range r.Names {
		m.Rows = append(m.Rows, label{left - 8, top + i*cellHeight + cellHeight/2 + 3, i, n})
		m.Columns = append(m.Columns, label{left + i*cellWidth + cellWidth/2, top - 8, i, n})
	}
	for i, row := range r.Cells {
		for j, c := range row {
			if c == nil {
				continue
			}
			x, y := left+j*cellWidth, top+i*cellHeight
			m.Cells = append(m.Cells, mapCell{
				X: x, Y: y, W: cellWidth - cellGap, H: cellHeight - cellGap,
				TextX: x + (cellWidth-cellGap)/2, TextY: y + cellHeight/2 + 3,
				Row: i, Column: j, From: r.Names[i].Name, To: r.Names[j].Name,
				Class: shade(c.Share()), Percent: percent(c.Share()), Title: r.title(i, j, c),
			})
		}
	}
	for i := range shades {
		share := float64(i) / (shades - 1)
		m.Scale = append(m.Scale, step{i * stepWidth, shade(share), percent(share)})
	}
	return m
}

// shades is how many colours there are. The first and last are for none and all,
// and for nothing else.
const shades = 11

func shade(share float64) string {
	i := int(math.Round(share * (shades - 1)))
	if share > 0 {
		i = max(i, 1)
	}
	if share < 1 {
		i = min(i, shades-2)
	}
	return fmt.Sprintf("s%d", i)
}

// percent rounds, but never to none or all.
func percent(share float64) string {
	n := int(math.Round(share * 100))
	if share > 0 {
		n = max(n, 1)
	}
	if share < 1 {
		n = min(n, 99)
	}
	return fmt.Sprint(n)
}

func (r Report) title(i, j int, c *Cell) string {
	return fmt.Sprintf("%s asks %s: %d of %d runs direct", r.Names[i].Name, r.Names[j].Name, len(c.Times), c.Runs)
}
