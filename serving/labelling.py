"""Typing the strings of a folder's images: the addresses under `/v1/label`, and what goes on behind them."""

# Without `from __future__ import annotations`: FastAPI could not resolve the names of annotations inside functions.

import asyncio
import hashlib
import json
import logging
import mimetypes
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar
from urllib.parse import SplitResult, urlsplit

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ValidationError

from detector.label_table import LabelsError
from serving import openapi
from serving.adapting import AdaptError, Adapting, Recipe, Status
from serving.intake import Intake, queue_full
from serving.label_folder import LabelFolder
from serving.label_order import CANDIDATES, RECENT, most_helpful
from serving.label_schemas import (
    MOST_LISTED,
    Added,
    Answer,
    Answered,
    BrokenImage,
    Choice,
    DoubtfulLabel,
    Exported,
    Next,
    Overview,
    Person,
    body_of,
)
from serving.label_store import Candidate, Guess, Item
from serving.options import Options
from serving.pool import Answer as Read
from serving.pool import Picture, Pool, QueueFull
from serving.problems import Problem, invalid_option
from serving.settings import Settings, is_loopback

_LEASE = 600.0  # seconds that an image is kept for the person whom it was shown
_AT_ONCE = 4  # images per worker that are read in the background at once: requests wait no longer than for these
_PAUSE = 1.0  # seconds before another try

_log = logging.getLogger("uvicorn.error")

P = ParamSpec("P")
T = TypeVar("T")
Form = TypeVar("Form", bound=BaseModel)


class Labelling:
    """Everything about labelling in one service.

    Args:
        settings: of the service.
        folder: what is labelled.
        weights: the ONNX file that the pool reads with.
        pool: reads the images.
        intake: takes in what is sent.
        recipe: how adapting is started.

    Raises:
        StoreError: if the folder's store cannot be used.
        LabelsError: if its table cannot be read.
        OSError: if the folder cannot be read or written.
    """

    def __init__(
        self, settings: Settings, folder: Path, weights: Path, pool: Pool, intake: Intake, recipe: Recipe
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._folder = LabelFolder(folder, settings.label_margin, settings.max_body)
        self._store = self._folder.store
        self._store.use_weights(hashlib.sha256(weights.read_bytes()).hexdigest())
        run = self._store.setting("run")
        self._adapting = Adapting(recipe, None if run is None else Path(run))
        self._pool = pool
        self._thread = ThreadPoolExecutor(1, "labels")  # the only one to use the store from now on
        self._desk = Desk()
        self._at_once = min(_AT_ONCE * settings.workers, max(settings.queue // 2, 1))
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts to read the images in the background."""
        self._reading = asyncio.create_task(self._read_all())

    async def stop(self) -> None:
        """Ends adapting and reading, and closes the store."""
        await self._adapting.stop()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._do(self._store.close)
        self._thread.shutdown()

    async def _do(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the store in its thread.

        Raises:
            Problem: if the disk does not take it.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))
        except (sqlite3.OperationalError, OSError) as error:
            _log.error("Labels cannot be written: %s", error)
            raise Problem(503, "not-written", f"the disk did not take it ({error}): try again") from error

    # --- guesses

    async def _read_all(self) -> None:
        """Has every image read that has no guess yet; those that come later are read as they come."""
        while True:
            try:
                images = await self._do(self._store.unguessed, self._at_once)
                if not images:
                    return
                await self._guess(dict(images))
            except (QueueFull, Problem):  # others go first; or the disk is full, which is in the log
                await asyncio.sleep(_PAUSE)

    async def _guess(self, files: dict[str, str]) -> None:
        pictures = await asyncio.to_thread(lambda: [self._folder.read(file) for file in files.values()])
        answers = await asyncio.gather(*self._pool.submit(pictures, Options()))
        guesses = {image: _as_guess(answer) for image, answer in zip(files, answers, strict=True)}
        await self._do(self._store.save_guesses, guesses)

    async def next_item(self, person: str, at_hand: list[str]) -> Item | None:
        """Chooses an image for a person and keeps it for them for a while."""
        put_off = self._desk.put_off_by(person)
        candidates = await self._do(self._store.candidates, person, [*at_hand, *put_off], CANDIDATES)
        free = [one for one in candidates if self._desk.is_free(one.id, person)]
        if not free:
            self._desk.forget(person)
            candidates = await self._do(self._store.candidates, person, at_hand, CANDIDATES)
            free = [one for one in candidates if self._desk.is_free(one.id, person)]
        own = [one for one in free if self._desk.is_lent(one.id, person)]  # of a page that was loaded anew
        chosen = most_helpful(own or free or candidates, self._desk.recent)
        if chosen is None:
            return None
        self._desk.lend(chosen, person)
        return await self._do(self._store.item, chosen.id)

    # --- adding, adapting

    async def _add(self, request: Request) -> list[Added]:
        pictures, _ = await self._intake.pictures(request)
        try:
            answers = await asyncio.gather(*self._pool.submit(pictures, Options()))
        except QueueFull as error:
            raise queue_full() from error
        return [await self._do(self._save, picture, answer) for picture, answer in zip(pictures, answers, strict=True)]

    def _save(self, picture: Picture, answer: Read) -> Added:
        """Puts an image into the folder and the store, in the store's thread."""
        guess = _as_guess(answer)
        if guess.error is not None:
            return Added(file=picture.file, id=None, error=guess.error)
        try:
            file = self._folder.save(picture)
        except ValueError as error:
            return Added(file=picture.file, id=None, error=str(error))
        self._store.add([file])
        image = self._store.ids_of([file])[file]
        self._store.save_guesses({image: guess})
        return Added(file=file, id=image, error=None)

    async def _export(self) -> int:
        try:
            return await self._do(self._folder.export)
        except LabelsError as error:
            raise Problem(409, "table-changed", f"somebody else wrote the table: {error}") from error

    async def _adapt(self) -> Status:
        await self._export()
        try:
            run = await self._adapting.start(self._folder.path)
        except AdaptError as error:
            raise Problem(409, "cannot-adapt", str(error)) from error
        await self._do(self._store.keep, "run", str(run))
        return self._adapting.status()

    def _doubtful(self) -> list[DoubtfulLabel]:
        """Labels that the adapted model contradicts and that nobody has looked at since."""
        doubts, since = self._adapting.audit()
        ids = self._store.ids_of(doubt.file for doubt in doubts)
        found = []
        for doubt in doubts:
            item = self._store.item(ids[doubt.file]) if doubt.file in ids else None
            if item is not None and item.text == doubt.text and not any(v.settles and v.at > since for v in item.votes):
                found.append(DoubtfulLabel(id=item.id, doubt=doubt))
        return found

    async def _overview(self) -> Overview:
        status, doubts = await asyncio.to_thread(self._adapting.status), await self._do(self._doubtful)
        return Overview(
            folder=self._folder.path.name,
            margin=self._store.margin,
            case=await self._do(lambda: self._store.case),
            counts=await self._do(self._store.counts),
            adapting=status,
            doubts=len(doubts),
        )

    async def _item(self, image: str) -> Item:
        item = await self._do(self._store.item, image)
        if item is None:
            raise Problem(404, "no-such-image", f"there is no image {image!r} in the folder that is labelled now")
        return item

    # --- addresses

    def page(self, static: Path) -> APIRouter:
        """The page for people."""
        router = APIRouter()

        @router.get("/label", include_in_schema=False)
        async def page() -> Response:
            return FileResponse(static / "label.html")

        return router

    def router(self) -> APIRouter:
        """Everything under `/v1/label`."""
        guards = [] if self._settings.api_keys else [Depends(own_page_only)]
        router = APIRouter(prefix="/v1/label", tags=["labelling"], dependencies=guards)
        self._add_images(router)
        self._add_answers(router)
        self._add_lists(router)
        self._add_adapting(router)
        return router

    def _add_images(self, router: APIRouter) -> None:
        @router.get("/next", responses=openapi.problems(401, 403, 422))
        async def next_image(
            person: Annotated[Person, Query()],
            at_hand: Annotated[list[str], Query(default_factory=list, max_length=100)],
        ) -> Next:
            """The image whose string helps most, of those that the person has neither answered nor at hand."""
            return Next(item=await self.next_item(person, at_hand))

        @router.get("/images/{image}", responses=openapi.problems(401, 403, 404))
        async def item(image: str) -> Item:
            """An image with its guess and its votes."""
            return await self._item(image)

        @router.get("/images/{image}/file", response_class=Response, responses=openapi.problems(401, 403, 404))
        async def file(image: str) -> Response:
            """The image itself."""
            name = (await self._item(image)).file
            picture = await asyncio.to_thread(self._folder.read, name)
            if picture.error is not None:
                raise Problem(404, "no-such-image", picture.error)
            return Response(picture.content, media_type=mimetypes.guess_type(name)[0] or "application/octet-stream")

        @router.post(
            "/images", responses=openapi.problems(400, 401, 403, 408, 413, 415, 422, 429), openapi_extra=openapi.FILES
        )
        async def add(request: Request) -> list[Added]:
            """Puts images into the folder; nothing there is overwritten."""
            return await self._add(request)

    def _add_answers(self, router: APIRouter) -> None:
        documents = Intake(self._settings)  # of its own: what people type is not refused for images that arrive

        @router.post(
            "/images/{image}/answers",
            responses=openapi.problems(401, 403, 404, 413, 415, 422, 503),
            openapi_extra=body_of(Answer),
        )
        async def answer(image: str, request: Request) -> Answered:
            """Takes what a person types; when this is answered, it is on the disk."""
            given = _checked(Answer, await documents.document(request))
            item = await self._do(self._store.answer, image, given.person, given.text, given.settles)
            if item is None:
                raise Problem(404, "no-such-image", f"there is no image {image!r} in the folder that is labelled now")
            self._desk.take_back(image)
            return Answered(item=item, counts=await self._do(self._store.counts))

        @router.post("/images/{image}/later", status_code=204, responses=openapi.problems(401, 403, 404, 422))
        async def later(image: str, person: Annotated[Person, Query()]) -> None:
            """Puts an image off, for this person, until there is no other."""
            self._desk.put_off((await self._item(image)).id, person)

        @router.put("/choice", responses=openapi.problems(401, 403, 413, 415, 422, 503), openapi_extra=body_of(Choice))
        async def choose(request: Request) -> Overview:
            """Sets the case of all strings."""
            choice = _checked(Choice, await documents.document(request))
            await self._do(self._store.set_case, choice.case)
            return await self._overview()

    def _add_lists(self, router: APIRouter) -> None:
        denied = openapi.problems(401, 403)

        @router.get("", responses=denied)
        async def overview() -> Overview:
            """How far the folder is."""
            return await self._overview()

        @router.get("/disputed", responses=denied)
        async def disputed() -> list[Item]:
            """Images that people disagree about."""
            ids = await self._do(self._store.disputed, MOST_LISTED)
            return [await self._item(image) for image in ids]

        @router.get("/doubtful", responses=denied)
        async def doubtful() -> list[DoubtfulLabel]:
            """Typed strings that the adapted model contradicts, for a second look."""
            return (await self._do(self._doubtful))[:MOST_LISTED]

        @router.get("/broken", responses=denied)
        async def broken() -> list[BrokenImage]:
            """Files that cannot be read."""
            rows = await self._do(self._store.broken, MOST_LISTED)
            return [BrokenImage(file=file, error=error) for file, error in rows]

        @router.get("/answered", responses=openapi.problems(401, 403, 422))
        async def answered(person: Annotated[Person, Query()]) -> list[str]:
            """The images that a person answered last, the latest first."""
            return await self._do(self._store.answered_by, person, MOST_LISTED)

    def _add_adapting(self, router: APIRouter) -> None:
        denied = openapi.problems(401, 403)

        @router.get("/labels.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}, **denied})
        async def download() -> Response:
            """The strings that were taken, with the header `file,text`."""
            headers = {"Content-Disposition": 'attachment; filename="labels.csv"'}
            return Response(await self._do(self._folder.labels), media_type="text/csv; charset=utf-8", headers=headers)

        @router.post("/export", responses=openapi.problems(401, 403, 409, 503))
        async def export() -> Exported:
            """Writes the strings that were taken into the folder's labels.csv."""
            return Exported(rows=await self._export())

        @router.post("/adapt", status_code=202, responses=openapi.problems(401, 403, 409, 503))
        async def adapt() -> Status:
            """Writes labels.csv and starts to learn from it."""
            return await self._adapt()

        @router.delete("/adapt", responses=denied)
        async def stop_adapting() -> Status:
            """Ends the run that is under way."""
            await self._adapting.stop()
            return self._adapting.status()


class Desk:
    """Who has which image at hand, and what was shown last: no loss when the service ends.

    Attributes:
        recent: what the model read in the images shown last.
    """

    def __init__(self) -> None:
        self.recent: deque[str] = deque(maxlen=RECENT)
        self._lent: dict[str, tuple[str, float]] = {}  # image: person, until when
        self._put_off: dict[str, dict[str, None]] = {}  # person: images, in order

    def lend(self, candidate: Candidate, person: str) -> None:
        """Keeps an image for a person."""
        now = time.monotonic()
        self._lent = {image: lease for image, lease in self._lent.items() if lease[1] > now}
        self._lent[candidate.id] = person, now + _LEASE
        self.recent.append(candidate.guess)

    def take_back(self, image: str) -> None:
        """Keeps an image no longer."""
        self._lent.pop(image, None)

    def is_lent(self, image: str, person: str) -> bool:
        """Whether a person has an image at hand."""
        holder, until = self._lent.get(image, ("", 0.0))
        return holder == person and until >= time.monotonic()

    def is_free(self, image: str, person: str) -> bool:
        """Whether nobody else has an image at hand."""
        holder, until = self._lent.get(image, (person, 0.0))
        return holder == person or until < time.monotonic()

    def put_off(self, image: str, person: str) -> None:
        """Shows a person an image only after all others."""
        self._put_off.setdefault(person, {})[image] = None

    def put_off_by(self, person: str) -> list[str]:
        """What a person put off."""
        return [*self._put_off.get(person, {})]

    def forget(self, person: str) -> None:
        """Puts nothing off any longer."""
        self._put_off.pop(person, None)


async def own_page_only(request: Request) -> None:
    """Refuses what another site's page sends through a browser on this machine, where no key tells them apart.

    Raises:
        Problem: if the request comes from such a page, or names this machine as only such a page would: by a name that
            was made to lead here ("DNS rebinding").
    """
    host = request.headers.get("host", "")
    if not is_loopback(_split(f"//{host}").hostname or ""):
        raise Problem(403, "foreign-host", f"without API keys this is for http://localhost alone, not {host!r}")
    origin = request.headers.get("origin")
    foreign = origin is not None and _split(origin).netloc != host
    if foreign or request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise Problem(403, "foreign-page", "pages of other sites may not change labels")


def _split(address: str) -> SplitResult:
    """The parts of an address; none of one that is broken."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _as_guess(answer: Read) -> Guess:
    record = json.loads(answer.line)
    return Guess(record["text"], record["confidence"], record["characters"], record["error"])


def _checked(form: type[Form], content: object) -> Form:
    """The fields of a small body.

    Raises:
        Problem: if they make no sense.
    """
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise invalid_option(error) from error
