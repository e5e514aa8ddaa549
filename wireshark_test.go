package bodkin_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bodkin"
	"bodkin/internal/wire"
	"bodkin/natlab"
	"bodkin/rendezvous"

	"github.com/pion/stun/v3"
)

// dissected is what Wireshark makes of a UDP packet.
type dissected struct {
	payload    []byte
	protocols  string
	stunType   string          // of STUN
	attributes map[string]bool // of STUN, their numbers
	channel    string          // of ChannelData
	length     string
	complaints []string
}

// wireshark shows a capture to tshark, in which whoever wrote it knew nothing of us.
func wireshark(t *testing.T, capture string) []dissected {
	t.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed; this test shows it our packets (Debian: apt-get install tshark)")
	}
	args := []string{"-n", "-r", capture, "-d", "udp.port==3478,stun", "-Y", "udp && !icmp", "-T", "fields", "-E", "aggregator=|"}
	for _, field := range []string{
		"udp.payload", "frame.protocols", "stun.type", "stun.att.type", "stun.channel", "stun.length", "_ws.malformed", "_ws.expert.message",
	} {
		args = append(args, "-e", field)
	}
	cmd := exec.CommandContext(t.Context(), tshark, args...)
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+t.TempDir()) // nobody's preferences
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.Bytes())
	}
	var all []dissected
	for row := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
		if len(f) != 8 {
			t.Fatalf("tshark said %q", row)
		}
		payload, err := hex.DecodeString(f[0])
		if err != nil {
			t.Fatal(err)
		}
		d := dissected{payload, f[1], f[2], make(map[string]bool), f[4], f[5], nil}
		for attribute := range strings.SplitSeq(f[3], "|") {
			d.attributes[attribute] = true
		}
		for _, complaint := range append(strings.Split(f[7], "|"), f[6]) {
			attribute, unknown := strings.CutPrefix(complaint, "Unknown attribute ")
			switch {
			case unknown && ours[attribute]:
				d.attributes[attribute] = true
			case strings.HasPrefix(complaint, "Possible traceroute"): // by the port alone, which is drawn
			case complaint != "":
				d.complaints = append(d.complaints, complaint)
			}
		}
		all = append(all, d)
	}
	return all
}

// ours are the attributes that Wireshark has no name for, and says so. STUN has no
// private numbers; these are unassigned.
var ours = func() map[string]bool {
	out := make(map[string]bool)
	add := func(a stun.AttrType) { out[fmt.Sprintf("0x%04x", uint16(a))] = true }
	for a := wire.AttrHandle; a <= wire.AttrArrived; a++ {
		add(a)
	}
	add(wire.AttrOtherPorts)
	add(wire.AttrToken)
	return out
}()

// check compares what Wireshark read with the packet.
func (d dissected) check(t *testing.T, name string) {
	t.Helper()
	if len(d.complaints) != 0 {
		t.Errorf("%s: Wireshark complains: %q", name, d.complaints)
	}
	if wire.Classify(d.payload, true) == wire.ClassChannel {
		want := []string{fmt.Sprintf("0x%04x", binary.BigEndian.Uint16(d.payload)), fmt.Sprint(binary.BigEndian.Uint16(d.payload[2:]))}
		if !strings.Contains(d.protocols, ":stun") || !slices.Equal([]string{d.channel, d.length}, want) {
			t.Errorf("%s is no ChannelData to Wireshark: %+v, want %q", name, d, want)
		}
		return
	}
	m, err := wire.Decode(d.payload)
	if err != nil {
		t.Errorf("%s is neither STUN nor ChannelData: %x", name, d.payload)
		return
	}
	for _, a := range m.Attributes {
		if !d.attributes[fmt.Sprintf("0x%04x", uint16(a.Type))] {
			t.Errorf("%s: Wireshark does not see attribute %#04x, but %v", name, uint16(a.Type), d.attributes)
		}
	}
	got := []string{d.stunType, d.length}
	want := []string{fmt.Sprintf("0x%04x", m.Type.Value()), fmt.Sprint(len(m.Raw) - 20)}
	if !strings.HasSuffix(d.protocols, ":stun") || !slices.Equal(got, want) {
		t.Errorf("%s is to Wireshark %s with type and length %q, want %q", name, d.protocols, got, want)
	}
}

// A message of each kind, as internal/wire holds them.
func TestWiresharkDecodesEveryMessage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("internal/wire/testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	node, server := netip.MustParseAddrPort("192.0.2.10:40001"), netip.MustParseAddrPort("203.0.113.1:3478")
	var names []string
	capture := pcapHeader()
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		name, lines, _ := strings.Cut(block, "\n")
		b, err := hex.DecodeString(strings.ReplaceAll(lines, "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		if wire.Classify(b, true) != wire.ClassOther { // else it travels sealed
			names = append(names, name)
			capture = appendUDP(capture, node, server, b)
		}
	}
	if len(names) < 30 {
		t.Fatalf("only %d messages: %q", len(names), names)
	}
	file := filepath.Join(t.TempDir(), "messages.pcap")
	if err := os.WriteFile(file, capture, 0o600); err != nil {
		t.Fatal(err)
	}
	got := wireshark(t, file)
	if len(got) != len(names) {
		t.Fatalf("%d messages became %d packets", len(names), len(got))
	}
	for i, d := range got {
		d.check(t, names[i])
	}
}

// pcapHeader begins a capture: LINKTYPE_RAW, each packet begins with its IP header.
func pcapHeader() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0) // version 2.4
	b = append(b, make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint32(b, 1<<16)
	return binary.LittleEndian.AppendUint32(b, 101)
}

// appendUDP appends a UDP packet over IPv4, where UDP may leave its checksum out.
func appendUDP(b []byte, from, to netip.AddrPort, data []byte) []byte {
	ip := []byte{0x45, 0}
	ip = binary.BigEndian.AppendUint16(ip, uint16(28+len(data)))
	ip = append(ip, 0, 0, 0x40, 0, 64, 17, 0, 0)
	ip = append(append(ip, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum))
	ip = binary.BigEndian.AppendUint16(ip, from.Port())
	ip = binary.BigEndian.AppendUint16(ip, to.Port())
	ip = binary.BigEndian.AppendUint16(ip, uint16(8+len(data)))
	ip = append(append(ip, 0, 0), data...)
	b = append(b, make([]byte, 8)...) // no time
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ip)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ip)))
	return append(b, ip...)
}

// What two real nodes and a real server say to each other until a hole is open,
// as their links carried it.
func TestWiresharkDecodesWhatNodesSay(t *testing.T) {
	t.Parallel()
	h := startHomes(t, natlab.Options{IPv6: true}, rendezvous.Limits{})
	dir := t.TempDir()
	stop, err := h.Pcap(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := h.node(t, "a", bodkin.Config{}), h.node(t, "b", bodkin.Config{})
	if err := b.WaitRegistered(testContext(t)); err != nil {
		t.Fatal(err)
	}
	echo(t, b, "echo") // a change: the server is told by a Refresh
	direct(t, a, b)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// All that the server's link carries is control or relayed.
	kinds := make(map[string]int)
	for i, d := range wireshark(t, filepath.Join(dir, "server.pcap")) {
		d.check(t, fmt.Sprintf("server's packet %d", i))
		if d.channel != "" {
			kinds["ChannelData"]++
		}
		kinds[d.stunType]++
	}
	for _, want := range []string{"0x0280", "0x0390", "0x0380", "0x0281", "0x0282", "0x0382", "0x0283", "0x0383", "ChannelData"} {
		if kinds[want] == 0 {
			t.Errorf("no %s in %v", want, kinds)
		}
	}
	// Between the homes, probes share the sockets with QUIC.
	kinds = make(map[string]int)
	for i, d := range wireshark(t, filepath.Join(dir, "home-a.pcap")) {
		if wire.Classify(d.payload, false) == wire.ClassSTUN {
			d.check(t, fmt.Sprintf("home's packet %d", i))
			kinds[d.stunType]++
		} else if strings.Contains(d.protocols, ":stun") && d.channel == "" {
			t.Errorf("home's packet %d of QUIC is STUN to Wireshark: %+v", i, d)
		}
	}
	if kinds["0x0001"] == 0 || kinds["0x0101"] == 0 {
		t.Errorf("no probes in %v", kinds)
	}
}
