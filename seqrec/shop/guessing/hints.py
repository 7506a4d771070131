"""Words that shops use for columns and event types, in a few languages. They support what the values show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from seqrec.shop.project import EventType

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "item": ("item", "product", "sku", "asin", "article", "artikel", "artikelnummer", "artnr", "produkt", "produit",
             "producto", "prodotto", "produto", "articulo", "articolo", "stockcode", "variant", "movie", "book",
             "track", "handle", "itemid", "productid"),
    "user": ("user", "customer", "visitor", "client", "account", "member", "kunde", "kundennummer", "kundennr",
             "nutzer", "besucher", "utilisateur", "cliente", "usuario", "acheteur", "utente", "klant", "klient",
             "buyer", "shopper", "userid", "customerid", "visitorid", "email", "uid", "person"),
    "time": ("time", "timestamp", "date", "datetime", "created", "datum", "zeit", "zeitpunkt", "uhrzeit", "when",
             "ts", "at", "occurred", "fecha", "horodatage", "unixtime", "créé"),
    "type": ("event", "type", "action", "kind", "activity", "ereignis", "aktion", "behavior", "behaviour", "typ",
             "interaction", "eventtype"),
    "status": ("status", "state", "bestellstatus", "orderstatus", "statut", "estado", "stato"),
    "value": ("rating", "stars", "score", "quantity", "qty", "menge", "anzahl", "stück", "stueck", "stückzahl",
              "count", "value", "wert", "units", "quantité", "cantidad", "quantità", "quantidade", "aantal", "ilość"),
    "session": ("session", "visit", "sessionid", "sitzung", "sid"),
    "anonymous": ("anonymous", "anonymousid", "pseudo", "cookie", "cookieid", "device", "deviceid", "guest",
                  "fingerprint", "browser", "gast"),
    "title": ("title", "name", "titel", "bezeichnung", "productname", "produktname", "nom", "nombre", "titre",
              "titolo", "artikelbezeichnung", "libellé", "label", "headline", "désignation", "intitulé", "título",
              "naam", "nome", "nazwa", "denominazione", "denominación"),
    "brand": ("brand", "manufacturer", "vendor", "marke", "hersteller", "marque", "author", "artist", "autor",
              "marca", "fabricant", "fabricante", "merk", "éditeur", "auteur"),
    "category": ("category", "categories", "kategorie", "kategorien", "genre", "genres", "department", "collection",
                 "warengruppe", "categorie", "catégorie", "catégories", "categoría", "categoria", "kategoria",
                 "rayon", "producttype", "type", "tags", "tag", "keywords", "schlagworte", "sparte", "group",
                 "gruppe", "family"),
    "description": ("description", "beschreibung", "details", "body", "text", "features", "summary", "langtext",
                    "kurztext", "kurzbeschreibung", "descripción", "bullets", "descriptif", "descrizione",
                    "descrição", "omschrijving", "opis"),
    "price": ("price", "preis", "prix", "precio", "cost", "msrp", "uvp", "listprice", "amount", "betrag", "unitprice",
              "vk", "brutto", "netto", "verkaufspreis", "einzelpreis", "bruttopreis", "nettopreis", "stückpreis",
              "montant", "tarif", "prezzo", "preço", "prijs", "cena", "importe"),
    "code": ("ean", "gtin", "upc", "isbn", "barcode", "code", "nr", "nummer", "number", "no", "id", "mpn", "hs",
             "sku", "plu", "zip", "uuid", "guid", "réf", "référence", "referencia", "codice"),
    "available": ("available", "availability", "instock", "stock", "verfügbar", "verfuegbar", "verfügbarkeit",
                  "active", "aktiv", "published", "status", "lagerbestand", "bestand", "inventory", "lager",
                  "disponible", "enabled", "lieferbar", "vorrätig", "vorraetig", "veröffentlicht", "disponibilité",
                  "disponibilidad", "disponibilità", "existencias", "giacenza", "voorraad"),
}  # fmt: skip

_COMPOUND = ("title", "brand", "category", "description", "price", "code", "available")

_HISTORY, _IGNORE = EventType(), EventType(history=False, ignore=True)
_NEGATIVE = EventType(history=False, negative=True)
DONE, OPEN = "bought: the state of an order", "an order that is not paid, or came to nothing"
UNKNOWN = "an unknown word: check it"
UNDONE = "an order taken back: not recommended to the user again; { ignore = true } only forgets it"
EVENT_TYPES: tuple[tuple[EventType, str, tuple[str, ...]], ...] = (
    (_NEGATIVE, UNDONE, (
        "return", "refund", "cancel", "retoure", "storno", "storniert", "rückerstattet", "erstattet", "remboursé",
        "annulé", "annulliert", "abgebrochen", "widerrufen", "void", "chargeback", "cancelado", "reembolsado")),
    (_NEGATIVE, "the user does not want it", (
        "dislike", "thumbsdown", "notinterested", "hide", "remove", "unlike", "downvote",
        "removefromcart", "block", "skip", "delete", "unfavorite")),
    (_IGNORE, OPEN, (
        "pending", "draft", "entwurf", "fail", "fehlgeschlagen", "offen", "ausstehend", "unpaid", "unbezahlt",
        "awaiting", "wartend", "expired", "enattente", "pendiente", "inattesa", "openstaand")),
    (_IGNORE, "only shown, not chosen", (
        "itemlist", "productlist", "promotion", "impression",
        "shown", "exposure", "display", "search", "login", "logout", "session", "render", "served",
        "listview", "error", "pageload", "scroll", "hover", "heartbeat", "ping", "resize")),
    (_HISTORY, DONE, (
        "paid", "complete", "abgeschlossen", "processing", "bearbeitung", "onhold", "wartestellung", "ship", "shipped",
        "versendet", "versandt", "deliver", "geliefert", "zugestellt", "fulfill", "fulfilled", "bezahlt", "terminé",
        "payé", "expédié", "livré", "pagado", "enviado", "betaald")),
    (_HISTORY, "bought or put aside", (
        "purchase", "order", "buy", "transaction", "checkout", "sale", "kauf", "bestellung", "achat", "conversion",
        "cart", "addtocart", "productadded",
        "basket", "warenkorb", "wishlist", "favorite", "favourite", "like", "save", "bookmark",
        "merkzettel", "rent", "subscribe", "pay", "compra", "panier")),
    (_HISTORY, "looked at", (
        "view", "click", "detail", "pageview", "visit", "open", "ansicht", "klick", "play", "watch", "read", "listen",
        "detailview", "productview", "vue", "browse", "pv", "rate", "rating", "review")),
)  # fmt: skip
"""What events are worth, by words in the name of their type; the first that fits."""


def _plain(text: str) -> str:
    """Without accents, as many shops write names: Quantite."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


_PLAIN = {role: frozenset(map(_plain, words)) for role, words in COLUMNS.items()}
_PLAIN_TYPES = tuple((rule, why, tuple(map(_plain, words))) for rule, why, words in EVENT_TYPES)


def words_of(name: str) -> list[str]:
    """The words of a column's name without accents, and the whole name without separators. `ProductID` has product,
    id, productid."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", _plain(name))
    words = [word for word in re.split(r"[^\w]+|_", spaced.lower()) if word]
    return [*words, "".join(words)]


_VAGUE = frozenset(
    ["id", "ids", "name", "title", "label", "key", "code", "value", "number", "nr", "handle", "uuid", "slug"]
)
_LATE = frozenset(["updated", "update", "modified", "changed", "edited", "cancelled", "canceled", "closed", "completed",
                   "shipped", "delivered", "due", "expires", "expiry", "deleted", "birth", "birthday", "geandert",
                   "first", "last", "previous"])  # fmt: skip


def telling_part(name: str) -> str:
    """Of the name of a nested field what says what it is: `customer.id`, but `quantity` of `line_items.quantity`."""
    parts = re.split(r"(?<=\w)\.(?=\w)", name)
    return ".".join(parts[-2:]) if parts[-1].lower() in _VAGUE else parts[-1]


def is_late(name: str) -> bool:
    """Whether a time is one of what happens to a record after it was made."""
    return not _LATE.isdisjoint(words_of(telling_part(name)))


def has_hint(name: str, role: str) -> bool:
    words = words_of(telling_part(name))
    if role == "time" and any(word.endswith(("datum", "date", "zeitpunkt", "timestamp")) for word in words):
        return True
    return any(word in _PLAIN[role] or (role in _COMPOUND and _names_part(word, role)) for word in words)


def _names_part(word: str, role: str) -> bool:
    """Whether a word is one of an item and one of the role, as `Artikelname` is."""
    return any(word.startswith(item) and word[len(item) :] in _PLAIN[role] for item in _PLAIN["item"])


def worth_of(type_name: str) -> tuple[EventType, str]:
    """What an event type is worth, and why."""
    words = words_of(type_name)
    joined = words[-1] if words else ""
    for rule, why, known in _PLAIN_TYPES:
        if any(word in known or word.removesuffix("s") in known or word.removesuffix("ed") in known for word in words):
            return rule, why
        if any(len(word) > 4 and word in joined for word in known):
            return rule, why
    return _HISTORY, UNKNOWN


def order_state(type_name: str) -> str | None:
    """DONE, OPEN or UNDONE if the name is the state of an order; None for what people do."""
    why = worth_of(type_name)[1]
    return why if why in (DONE, OPEN, UNDONE) else None
