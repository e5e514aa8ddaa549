// Package pair makes two peers known to each other by a code of a number and two
// words, which one person reads to another: 42-lantern-copper.
//
// The number is a nameplate, under which the server carries letters between the one
// who invites and the first who joins. What is in them is here, and has neither I/O
// nor a clock. The words never leave a machine; CPace (package pake) makes a key of
// them, and each side proves to the other that it has the same key and the private
// half of the ID by which the server calls it:
//
//	joiner → inviter   share
//	inviter → joiner   share
//	joiner → inviter   tag
//	inviter → joiner   tag, or a refusal
//
// Whoever does not know the words, the server included, has one guess against each
// side, which that side notices, since an inviter takes part once for a code.
package pair

import "errors"

// Errors, in words for people.
var (
	// ErrMalformed: the text is no code. Nothing was sent, and the code is still good.
	ErrMalformed = errors.New("not a code")
	// ErrWrong, at the joiner: the other side has other words.
	ErrWrong = errors.New("the words are not the inviter's, or somebody in between tried to guess them; " +
		"this code is used up: ask for a new one")
	// ErrTried, at the inviter: the one who joined has other words.
	ErrTried = errors.New("somebody tried to join with wrong words, and the code is used up: make a new one; " +
		"if it was not the person you invited, somebody is guessing")
	// ErrUnfinished, at the inviter: the one who joined did not go on.
	ErrUnfinished = errors.New("somebody began to join and did not go on, and the code is used up: make a new one; " +
		"if it was not the person you invited, somebody is guessing")
	// ErrSilent, at the joiner: the other side did not go on.
	ErrSilent = errors.New("the inviter's machine does not answer; this code is used up: ask for a new one")
)
