package netbed_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

// A test of a program with real sockets, between two NATs. The test's package needs
//
//	func TestMain(m *testing.M) { netbed.Main(m) }
func Example() {
	_ = func(t *testing.T) {
		netbed.Need(t)
		lab, err := netbed.Model.Start(t.Context(), natlab.TwoHomes(natlab.Options{PresetA: natlab.FullCone}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(lab.Close)
		to := netip.AddrPortFrom(lab.Host("server").Addr(), 7)
		server, err := lab.Host("server").ListenUDP(t.Context(), "udp4", to)
		if err != nil {
			t.Fatal(err)
		}
		a, err := lab.Host("a").ListenUDP(t.Context(), "udp4", netip.AddrPort{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
			t.Fatal(err)
		}
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 100))
		if from.Addr().Unmap() != lab.Box("home-a").Addr() {
			t.Errorf("from %v, %v", from, err)
		}
	}
}

// Any program can run on a host.
func ExampleHost_Start() {
	_ = func(t *testing.T, lab *netbed.Lab) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "ping", "-c", "1", lab.Host("server").Addr().String())
		cmd.Stdout = os.Stdout
		if err := lab.Host("a").Start(cmd); err != nil {
			t.Fatal(err)
		}
		fmt.Println(cmd.Wait())
	}
}
