// Package page writes the results of a matrix as one HTML file that needs nothing
// else: a heat map, the distribution of each of its cells, and sequence diagrams of
// some runs. It loads nothing from anywhere, and its content security policy would
// not let it.
//
//	page.go    what a page is made of
//	map.go     the heat map, drawn here
//	encode.go  the data for the script, which draws the rest
package page
