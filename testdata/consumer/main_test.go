package main

import (
	"testing"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

func TestMain(m *testing.M) { netbed.Main(m) }

func TestTalkBetweenTwoHomes(t *testing.T) {
	netbed.Need(t)
	lab, err := netbed.Start(t.Context(), natlab.TwoHomes(natlab.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	server := lab.Host("server")
	answer, err := talk(t.Context(), world{server: server, a: lab.Host("a"), b: lab.Host("b"), address: server.Addr()})
	if err != nil || answer != "hello, world, over udp" {
		t.Fatalf("%q, %v", answer, err)
	}
}
