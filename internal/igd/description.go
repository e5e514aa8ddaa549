package igd

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

const (
	maxDepth    = 24 // of XML elements; a router's description has 10
	maxServices = 64
	maxText     = 120 // bytes of what a device says of itself that are kept
)

// description is the part of a device's description that matters here.
type description struct {
	base     string // URLBase, of version 1.0
	name     string // friendlyName of the root device
	model    string // modelName of the root device
	services []service
}

type service struct {
	kind    string // serviceType
	control string // controlURL
}

// fetch gets a device's description from where its answer said.
func (l Link) fetch(ctx context.Context, a Answer) (description, error) {
	client := l.client(a.From, maxDescription)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Location.String(), nil)
	if err != nil {
		return description{}, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return description{}, fmt.Errorf("description of %v: %w", a.From, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return description{}, fmt.Errorf("description of %v: HTTP status %d", a.From, answer.StatusCode)
	}
	d, err := parseDescription(answer.Body)
	if err != nil {
		return description{}, fmt.Errorf("description of %v: %w", a.From, err)
	}
	return d, nil
}

// parseDescription reads tokens, never a tree: what it keeps is bounded whatever
// it reads. Entities that a document defines itself are not known here, so none
// grows. Namespaces are ignored, as devices do.
func parseDescription(r io.Reader) (description, error) {
	var d description
	decoder := xml.NewDecoder(r)
	decoder.CharsetReader = asciiOnly
	var within []string
	var text strings.Builder
	var s service
	for {
		token, err := decoder.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return description{}, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if len(within) == maxDepth {
				return description{}, errors.New("elements are nested too deep")
			}
			within = append(within, t.Name.Local)
			text.Reset()
		case xml.CharData:
			if text.Len()+len(t) <= maxDatagram {
				text.Write(t)
			}
		case xml.EndElement:
			// RawToken does not compare the two ends of an element.
			if len(within) == 0 || within[len(within)-1] != t.Name.Local {
				return description{}, fmt.Errorf("element %.40q ends where it does not", t.Name.Local)
			}
			within = within[:len(within)-1]
			value := strings.TrimSpace(text.String())
			text.Reset()
			inService := len(within) > 0 && within[len(within)-1] == "service"
			switch {
			case t.Name.Local == "service":
				if len(d.services) == maxServices {
					return description{}, errors.New("too many services")
				}
				d.services = append(d.services, s)
				s = service{}
			case inService && t.Name.Local == "serviceType":
				s.kind = value
			case inService && t.Name.Local == "controlURL":
				s.control = value
			case t.Name.Local == "URLBase" && len(within) == 1:
				d.base = value
			case t.Name.Local == "friendlyName" && len(within) == 2:
				d.name = clean(value)
			case t.Name.Local == "modelName" && len(within) == 2:
				d.model = clean(value)
			}
		}
	}
	if len(within) > 0 {
		return description{}, io.ErrUnexpectedEOF
	}
	if len(d.services) == 0 {
		return description{}, errors.New("no services")
	}
	return d, nil
}

// controlURL is where a service takes its actions: relative to the base that the
// description names, or to where the description was.
func (d description) controlURL(s service, location *url.URL) (*url.URL, error) {
	base := location
	if d.base != "" {
		u, err := url.Parse(d.base)
		if err != nil {
			return nil, err
		}
		base = u
	}
	u, err := url.Parse(s.control)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "" && u.Host == "" && !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path // devices that mean the root say it so
	}
	return base.ResolveReference(u), nil
}

// asciiOnly reads a charset that is not UTF-8: whichever it is, nothing that
// matters here has more than ASCII.
func asciiOnly(_ string, r io.Reader) (io.Reader, error) { return asciiReader{r}, nil }

type asciiReader struct{ io.Reader }

func (r asciiReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	for i, c := range p[:n] {
		if c >= 0x80 {
			p[i] = '?'
		}
	}
	return n, err
}

// clean makes text of a stranger fit to be shown: short, and printable.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return strings.TrimSpace(s)
}
