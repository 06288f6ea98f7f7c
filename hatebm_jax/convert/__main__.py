"""Command line: converts other people's weights, and makes releases.

`python -m hatebm_jax.convert {tf2|mimicry|inception} SOURCE OUT.npz` converts a
network. `release` makes a folder with the weights of a run or of other people's
files, and `check` draws the golden samples of such a folder again.
"""

import argparse
import sys

import flax.linen as nn
import ml_collections

from hatebm_jax import config_flag, convert, errors, release
from hatebm_jax.release import card, other_files


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m hatebm_jax.convert",
    description="Converts other implementations' weights to an .npz, and makes "
    "and checks releases.",
    allow_abbrev=False,
  )
  kinds = parser.add_subparsers(dest="kind", required=True)

  def add(name, help_text, source, read):
    kind = kinds.add_parser(name, help=help_text, allow_abbrev=False)
    kind.add_argument("source", help=source)
    kind.add_argument("out", help="The .npz to write.")
    kind.set_defaults(run=lambda args: _convert(args.out, *read(args)))
    return kind

  tf2 = add(
    "tf2",
    "Reads a network of the TensorFlow 2 reference.",
    "The prefix of the checkpoint, such as ebm.ckpt.",
    lambda args: convert.from_tf2(args.source, _out_factor(args)),
  )
  _add_out_factor(tf2.add_mutually_exclusive_group())
  mimicry = add(
    "mimicry",
    "Reads a network of torch-mimicry's SN-GAN.",
    "The file netG.pth or netD.pth.",
    lambda args: convert.from_mimicry(args.source, args.key),
  )
  inception = add(
    "inception",
    "Reads the Inception network of 2015, for FID.",
    "The .pth of pytorch-fid or torch-fidelity.",
    lambda args: convert.from_inception(args.source, args.key),
  )
  for kind in (mimicry, inception):
    kind.add_argument(
      "--key",
      help="The name of the network in a file that holds several. A file with "
      "one network needs none.",
    )
  _add_release(kinds)
  check = kinds.add_parser(
    "check",
    help="Draws the golden samples of a release again and compares them. The "
    "exit status is 0 if they are equal.",
  )
  check.add_argument("dir", help="The folder of the release.")
  check.set_defaults(run=_check)
  return parser


def _add_release(kinds: argparse._SubParsersAction) -> None:
  """Adds the command that makes a release."""
  parser = kinds.add_parser(
    "release",
    help="Makes a folder with the weights of a run or of other people's files, "
    "which --workdir takes for sampling and evaluation.",
    allow_abbrev=False,
  )
  parser.add_argument("dir", nargs="?", help="The workdir of a run.")
  parser.add_argument("--out", required=True, help="The folder to make.")
  parser.add_argument(
    "--checkpoint",
    type=int,
    help="The training step of the run's checkpoint. Without it the newest "
    "one is taken.",
  )
  parser.add_argument(
    "--averaged_only",
    action="store_true",
    help="Keeps only the averaged weights of the run, which become the raw "
    "weights of the release. It is half as large.",
  )
  parser.add_argument(
    "--config",
    help="The name or file of the config of the experiment that other people's "
    "files come from. --config.group.field=value overrides a field.",
  )
  for name in other_files.NETWORKS:
    parser.add_argument(
      f"--{name}",
      help=f"The file of the {name}: a TensorFlow 2 checkpoint such as "
      "ebm.ckpt, a .pth of torch-mimicry, or a converted .npz.",
    )
  parser.add_argument(
    "--license",
    default=card.UNKNOWN,
    help="The licence of the weights for the model card, such as apache-2.0.",
  )
  parser.set_defaults(run=_release, parser=parser)


def _add_out_factor(group: argparse._MutuallyExclusiveGroup) -> None:
  """Adds the flags that say how large a generator's images are."""
  group.add_argument(
    "--out_factor",
    type=float,
    help="The images of a generator or decoder are out_factor * tanh(...). "
    "Their file does not tell it. The authors used 2 for synthesis and "
    "retrofit, and 1 for refinement.",
  )
  group.add_argument(
    "--config",
    help="The name or file of the experiment's config, which tells "
    "out_factor in place of --out_factor.",
  )


def _config(args: argparse.Namespace) -> ml_collections.ConfigDict:
  """Returns the config that the arguments describe."""
  return config_flag.load([f"--config={args.config}", *args.overrides])


def _out_factor(args: argparse.Namespace) -> float | None:
  """Returns the out_factor that the arguments tell, or None."""
  if args.config is None:
    return args.out_factor
  return _config(args).generator.out_factor


def _parse() -> argparse.Namespace:
  """Parses the command line; fields of a config are in `overrides`."""
  parser = _parser()
  args, args.overrides = parser.parse_known_args()
  strange = [x for x in args.overrides if not x.startswith("--config.")]
  if strange or (args.overrides and getattr(args, "config", None) is None):
    parser.error(f"unexpected arguments: {' '.join(strange or args.overrides)}")
  return args


def _convert(
  out: str, module: nn.Module, variables: convert.network.Variables
) -> int:
  """Writes a network that was read; returns the exit status."""
  convert.save_npz(out, module, variables)
  print(f"{out}: {module}")
  return 0


def _release(args: argparse.Namespace) -> int:
  """Makes a release; returns the exit status."""
  paths = {name: getattr(args, name) for name in other_files.NETWORKS}
  paths = {name: path for name, path in paths.items() if path is not None}
  of_run, of_files = args.dir is not None, bool(args.config or paths)
  if of_run == of_files or (of_files and not (args.config and paths)):
    args.parser.error(
      "expected the workdir of a run, or --config and the files of its "
      "networks, such as --hat=ebm.ckpt --generator=gen.ckpt"
    )
  if of_files and (args.averaged_only or args.checkpoint is not None):
    args.parser.error("--checkpoint and --averaged_only need a run's workdir")
  if of_run:
    path = release.from_run(
      args.dir, args.out, args.checkpoint, args.license, args.averaged_only
    )
  else:
    path = release.from_files(_config(args), args.out, paths, args.license)
  print(f"{path}: a release, which --workdir takes for sampling and evaluation")
  return 0


def _check(args: argparse.Namespace) -> int:
  """Checks the golden samples of a release; returns the exit status."""
  equal, line = release.check(args.dir)
  print(line)
  return 0 if equal else 1


def main() -> int:
  """Runs the command; returns the exit status."""
  args = _parse()
  try:
    return args.run(args)
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
  sys.exit(main())
