"""Command line: `python -m hatebm_jax.convert KIND SOURCE OUT.npz`.

KIND is tf2, mimicry or inception.
"""

import argparse
import sys

from hatebm_jax import convert, errors


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m hatebm_jax.convert",
    description="Convert other implementations' weights to an .npz.",
  )
  sources = parser.add_subparsers(dest="source_format", required=True)
  tf2 = sources.add_parser(
    "tf2", help="a network of the TensorFlow 2 reference"
  )
  tf2.add_argument("source", help="checkpoint prefix, as in ebm.ckpt")
  tf2.add_argument("out", help="the .npz to write")
  tf2.add_argument(
    "--out_factor",
    type=float,
    help="of a generator or decoder: images are out_factor * tanh(...); 2 for "
    "synthesis and retrofit, 1 for refinement (default: 2, at 64 pixels 1)",
  )
  tf2.set_defaults(
    read=lambda args: convert.from_tf2(args.source, args.out_factor)
  )
  mimicry = sources.add_parser(
    "mimicry", help="netG.pth or netD.pth of torch-mimicry's SN-GAN"
  )
  mimicry.add_argument("source", help="the .pth")
  mimicry.add_argument("out", help="the .npz to write")
  mimicry.set_defaults(read=lambda args: convert.from_mimicry(args.source))
  inception = sources.add_parser(
    "inception", help="the Inception network of 2015, for FID"
  )
  inception.add_argument(
    "source", help="a .pth of pytorch-fid or torch-fidelity"
  )
  inception.add_argument("out", help="the .npz to write")
  inception.set_defaults(read=lambda args: convert.from_inception(args.source))
  return parser


def main() -> int:
  """Converts a file; returns the exit status."""
  args = _parser().parse_args()
  try:
    module, variables = args.read(args)
    convert.save_npz(args.out, module, variables)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(f"{args.out}: {module}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
