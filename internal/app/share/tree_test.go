package share

import (
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
)

// The hash made of pieces is BLAKE3's of the whole, as the library computes it.
func TestPiecesMakeTheHashOfTheWhole(t *testing.T) {
	t.Parallel()
	all := make([]byte, 5<<20+123)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(all)
	for _, size := range []int{
		0, 1, 1023, 1024, 1025, 16384, 16385, 40000, minPiece - 1, minPiece, minPiece + 1, 2 * minPiece, 3*minPiece - 7,
		4 * minPiece, 5*minPiece + 1024, 7 * minPiece, 4 << 20, len(all),
	} {
		b := all[:size:size]
		var of []hash
		for n := range pieces(int64(size)) {
			from := n * minPiece
			of = append(of, pieceHash(b[from:from+pieceLen(int64(size), n)], int64(size), n))
		}
		if got, want := merged(of), hash(blake3.Sum256(b)); got != want {
			t.Errorf("%d bytes: %x, want %x", size, got, want)
		}
		if got, want := whole(b), hash(blake3.Sum256(b)); got != want {
			t.Errorf("%d bytes at once: %x, want %x", size, got, want)
		}
	}
}

func TestPieceSizesOfLargeFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size, piece int64
		pieces      int
	}{
		{0, minPiece, 1},
		{1, minPiece, 1},
		{minPiece, minPiece, 1},
		{minPiece + 1, minPiece, 2},
		{4 << 30, minPiece, manyPieces},
		{4<<30 + 1, 2 * minPiece, manyPieces/2 + 1},
		{1 << 40, maxPiece, 1 << 18},
	} {
		if p, n := pieceSize(c.size), pieces(c.size); p != c.piece || n != c.pieces {
			t.Errorf("%d bytes: %d pieces of %d, want %d of %d", c.size, n, p, c.pieces, c.piece)
		}
	}
}
