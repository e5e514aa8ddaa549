package netbed_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

// A program with real sockets behind a NAT. The package's TestMain calls
// netbed.Main.
func Example() {
	ctx := context.Background()
	lab, err := netbed.Model.Start(ctx, natlab.TwoHomes(natlab.Options{PresetA: natlab.FullCone}))
	if err != nil {
		return // no lab here, and err says why; a test calls netbed.Need first
	}
	defer lab.Close()
	at := netip.AddrPortFrom(lab.Host("server").Addr(), 7)
	server, _ := lab.Host("server").ListenUDP(ctx, "udp4", at)
	a, _ := lab.Host("a").ListenUDP(ctx, "udp4", netip.AddrPort{})
	_, _ = a.WriteToUDPAddrPort([]byte("hello"), at)
	_, from, _ := server.ReadFromUDPAddrPort(make([]byte, 100))
	if from.Addr().Unmap() != lab.Box("home-a").Addr() {
		fmt.Println("it was not translated")
	}
	// Output:
}

// Any program can run on a host.
func ExampleHost_Start() {
	lab, err := netbed.Start(context.Background(), natlab.TwoHomes(natlab.Options{}))
	if err != nil {
		return
	}
	defer lab.Close()
	command := exec.CommandContext(context.Background(), "true")
	if err := lab.Host("a").Start(command); err != nil {
		fmt.Println(err)
	}
	if err := command.Wait(); err != nil {
		fmt.Println(err)
	}
	// Output:
}
