"""`publish`: SAEs, their metrics and a model card to a Hub repository, after a scan of what would be sent."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medsae_plugin.errors import MedSAEError
from medsae_plugin.fetch import hub_errors
from medsae_plugin.files import make_folder, refuse_other_content, write_text
from medsae_plugin.release import scan
from medsae_plugin.release.contents import Published, collect
from medsae_plugin.release.model_card import write_card
from medsae_plugin.sae_folders import HISTORY, REPORT
from medsae_plugin.training.memory import DIGESTS

README = "README.md"
_MESSAGE = "Publish SAEs with medsae-plugin"
_MOST_LISTED = 20


@dataclass(frozen=True)
class Publication:
    """What was sent, or would be: the files' sizes in bytes, by their path in the repository.

    left_out: files in the SAEs' folders that are not sent.
    folder: where a dry run has written them.
    commit: of the repository, which holds them; None after a dry run.
    changed: whether that commit is new.
    """

    files: dict[str, int]
    left_out: list[Path]
    folder: Path | None = None
    commit: str | None = None
    changed: bool = False


def publish(
    runs: Sequence[str | Path],
    repo_id: str,
    *,
    metrics: str | Path | None = None,
    private: bool = False,
    revision: str | None = None,
    dry_run: str | Path | None = None,
    licence: str | None = None,
    data: str | None = None,
    small: int = scan.SMALL,
) -> Publication:
    """Send SAEs in SAE-Lens's format, with metrics, names and a model card, to a Hub repository.

    The repository is made if there is none. An upload that was cut goes on where it was when called again; what is
    there already makes no new commit. The token is huggingface_hub's.

    Args:
        runs: folders that `medsae train` wrote, or folders of one SAE each.
        repo_id: `org/name`.
        metrics: what `medsae evaluate` wrote, or its folder; None looks beside each SAE's weights, then in its run.
        private: make a new repository private.
        revision: a branch to commit to, made if there is none; None is `main`.
        dry_run: a folder to write exactly what would be sent to, instead of sending it.
        licence: of the SAEs; None is the encoder's.
        data: what the images were, in words, such as `CheXpert, training set`.
        small: refuse to send counts of images by label below this, but for 0, which discloses no one.

    Raises:
        MedSAEError: nothing to send; something that must not be sent; a Hub that refuses or cannot be reached.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise MedSAEError(f"{repo_id!r} is no repository: give ORG/NAME")
    target = None if dry_run is None else Path(dry_run)
    if target is not None:
        refuse_other_content(target)
    saes = collect(runs, metrics)
    if target is not None:
        make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target and target.parent, prefix=".publish-") as temporary:
        staged = Path(temporary) / "staged"
        for sae in saes:
            sae.write(staged / sae.name)
        licence = licence or _licence_of(saes[0])
        card = write_card(saes, repo_id, licence=licence, data=data, revision=revision, small=small)
        write_text(staged / README, card)
        files = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
        left_out = _left_out(saes, set(files))
        _refuse_what_must_stay(files, left_out, small)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        if target is not None:
            staged.replace(target)
            return Publication(sizes, left_out, folder=target)
        commit, changed = _send(files, repo_id, private, revision)
    return Publication(sizes, left_out, commit=commit, changed=changed)


def _licence_of(sae: Published) -> str:
    """The licence of the SAE's encoder, which the SAE was made from."""
    from medsae_plugin.encoders.cards import list_cards, load_card

    encoder = sae.config.metadata.model_name
    if encoder not in list_cards():
        raise MedSAEError(f"no card of the package tells the licence of the encoder {encoder}; give the SAEs' own")
    return load_card(encoder).licence


def _left_out(saes: Sequence[Published], sent: set[str]) -> list[Path]:
    """What else lies in the SAEs' folders; the report of the training is in the card, in words, and its patients'
    digests are for the place where it was made alone."""
    return [
        path
        for sae in saes
        for path in sorted(sae.folder.rglob("*"))
        if path.is_file()
        and f"{sae.name}/{path.relative_to(sae.folder).as_posix()}" not in sent
        and path.name not in (REPORT, HISTORY, DIGESTS)
    ]


def _refuse_what_must_stay(files: dict[str, Path], left_out: Sequence[Path], small: int) -> None:
    found = [f"{path} is an image" for path in left_out if scan.is_image(path)]
    for name, path in files.items():
        found += scan.scan(path, name, small)
    found = list(dict.fromkeys(found))
    if not found:
        return
    more = [f"and {len(found) - _MOST_LISTED} more"] if len(found) > _MOST_LISTED else []
    counts = any("fewer than" in line or "known to" in line for line in found)
    advice = "remove them" + (", and leave rare labels out of the evaluation (--labels)" if counts else "")
    listed = "\n  ".join([*found[:_MOST_LISTED], *more])
    raise MedSAEError(f"nothing is sent, for what would be has things in it that must not leave; {advice}:\n  {listed}")


def _send(files: dict[str, Path], repo_id: str, private: bool, revision: str | None) -> tuple[str, bool]:
    """Upload and commit; the commit that holds the files, and whether it is new."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="medsae-plugin")
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    with hub_errors(repo_id, f"publishing to {repo_id}"):
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        before = api.repo_info(repo_id, revision=revision)
        if private and not before.private:
            raise MedSAEError(f"{repo_id} is there already, and public; make it private on the Hub, or choose another")
        try:
            commit = api.create_commit(repo_id, operations, commit_message=_MESSAGE, revision=revision)
        except HfHubHTTPError:
            raise
        except (RuntimeError, OSError) as error:  # a large file that did not arrive, by LFS or Xet, after several tries
            reason = f"{error} {error.__cause__ or ''}".strip()
            raise MedSAEError(f"publishing to {repo_id} was cut: {reason}; run it again to go on from there") from None
        except ValueError as error:  # huggingface_hub's, for the Hub's verdict on the card's metadata
            raise MedSAEError(f"{repo_id} does not take this: {error}") from None
    return commit.oid, commit.oid != before.sha
